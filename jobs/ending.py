"""The end of a process: its exit code, and the signals that stop it.

Ray's own code can hold the main thread for minutes. Meanwhile no exception and no signal handler of
Python runs there, so a thread ends the process, with one line on standard error. It cleans up
nothing: a local cluster of Ray notices the end of its driver by itself. Loads without torch and
Ray.
"""

import contextlib
import enum
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import NoReturn, Self

from jobs.errors import (
    ClusterUnreachableError,
    DeadlineReachedError,
    LeaseHeldError,
    StoppedError,
    StoreUnavailableError,
)
from jobs.guarded_output import STDERR, is_writable
from jobs.json_lines import error_line
from jobs.text import log_time
from pipelines.errors import HubUnreachableError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WRITE_S = 0.3
GRACE_S = 1.5  # after the last signal, for an end in good order


class ExitCode(enum.IntEnum):
    """The exit codes of all commands, each with its meaning for people.

    1 is Python's own, after an exception that no code expected. The last two are EX_UNAVAILABLE and
    EX_TEMPFAIL of sysexits.h, which other programs use in this sense too.
    """

    meaning: str

    OK = 0, "all clips are committed, or the command has done its work"
    REFUSED = 2, "refused before anything ran: the input, a setting or a right is wrong"
    UNFINISHED = 3, "finished with clips in quarantine or damaged; verify: with findings"
    STOPPED = 4, "stopped before the end; run it again to go on"
    DEADLINE = 5, "ended by --deadline with clips left; run it again to go on"
    UNAVAILABLE = (
        69,
        "refused: the store, the Ray cluster or the hub does not answer; try again later",
    )
    BUSY = 75, "refused: another driver holds the output; try again later, or render --wait"

    def __new__(cls, code: int, meaning: str) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    @classmethod
    def of_refusal(cls, error: Exception) -> "ExitCode":
        """Return the code for an error that came before anything ran."""
        match error:
            case LeaseHeldError():
                return cls.BUSY
            case StoreUnavailableError() | ClusterUnreachableError() | HubUnreachableError():
                return cls.UNAVAILABLE
            case _:
                return cls.REFUSED

    @classmethod
    def of_stop(cls, error: StoppedError) -> "ExitCode":
        """Return the code for an error that ended a run."""
        return cls.DEADLINE if isinstance(error, DeadlineReachedError) else cls.STOPPED


@contextlib.contextmanager
def handled_signals(
    numbers: tuple[signal.Signals, ...], handler: Callable[[int, FrameType | None], None]
) -> Generator[None]:
    """Install a handler for some signals, and restore the earlier handlers at the end.

    SIGHUP stays ignored if the process was started so, as by `nohup`.
    """
    previous = {
        number: signal.signal(number, handler)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, earlier in previous.items():
            signal.signal(number, earlier)


def is_request(number: int, *, is_first: bool) -> bool:
    """Return True if a signal asks this process to stop, or to stop at once.

    SIGHUP asks only once: a shell and the kernel both send it when a terminal is closed, and a
    service manager sends it after SIGTERM.
    """
    return number in STOP_SIGNALS and (is_first or number != signal.SIGHUP)


def stop_reason(number: int) -> str:
    """Return the reason in messages of a run that a signal stopped."""
    return f"by {signal.Signals(number).name}; run it again to go on"


@contextlib.contextmanager
def stopped_by_signals() -> Generator[None]:
    """Raise StoppedError out of the block at the first signal that asks this process to stop."""
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt  # Ray and boto3 catch and retry what is an Exception

    with handled_signals(STOP_SIGNALS, interrupt):
        try:
            yield
        except KeyboardInterrupt as error:
            number = received[0] if received else signal.SIGINT
            raise StoppedError(stop_reason(number)) from error


@contextlib.contextmanager
def drained_by_signals(request_stop: Callable[[str], None]) -> Generator[None]:
    """Call `request_stop` with the reason at each stop signal; a second one ends the block at once.

    `ray job stop` and a spot notice send SIGTERM, Ctrl-C sends SIGINT, and a terminal that goes
    away sends SIGHUP.
    """
    asked: list[str] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        reason = stop_reason(number)
        request_stop(reason)
        if asked and is_request(number, is_first=False):
            raise KeyboardInterrupt  # Ray's calls let nothing else through
        asked.append(reason)

    with handled_signals(STOP_SIGNALS, stop):
        try:
            yield
        except KeyboardInterrupt as error:
            raise StoppedError(asked[0]) from error


def end_process(message: str, exit_code: ExitCode) -> NoReturn:
    """Print one line and end the process at once, whatever its threads do.

    Args:
        message: text of our own, without secrets and without names from users.
    """
    is_stop = exit_code == ExitCode.STOPPED
    stamp = f"{log_time(time.time())} " if is_stop else ""
    event = "stopped" if is_stop else "refused"
    line = error_line(event, message, stamp=stamp, exit_code=int(exit_code))
    # not through sys.stderr, whose lock the held thread may hold
    with contextlib.suppress(OSError):
        if is_writable(STDERR, WRITE_S):  # the reader of a pipe may have stopped reading
            os.write(STDERR, f"{line}\n".encode())
    os._exit(exit_code)


@contextlib.contextmanager
def ended_after(seconds: float, message: str, exit_code: ExitCode) -> Generator[None]:
    """End the process if the block still runs after some seconds."""
    timer = threading.Timer(seconds, end_process, (message, exit_code))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def ended_by_signals(count: int) -> Generator[None]:
    """End the process `GRACE_S` after the given number of stop signals, unless the block ends.

    A signal counts if Python handles it, by whatever handler. Works in the main thread alone.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    is_over = threading.Event()
    earlier = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(
        target=_end_on_signals, args=(reading, count, is_over), name="signals", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(earlier)
        is_over.set()
        os.close(writing)  # ends the thread
        thread.join()


def _end_on_signals(reading: int, count: int, is_over: threading.Event) -> None:
    """Read the numbers of signals until the pipe is closed."""
    num_counted = 0
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while number := pipe.read(1):
            num_counted += is_request(number[0], is_first=num_counted == 0)
            if num_counted >= count:
                break
        else:
            return
    if not is_over.wait(GRACE_S):
        end_process(f"stopped: {stop_reason(number[0])}", ExitCode.STOPPED)
