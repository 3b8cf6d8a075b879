"""The end of a process whose main thread may be held: one line on standard error, and an exit code.

Ray's own code can hold the main thread for minutes. Meanwhile no exception and no signal handler of
Python runs there, so a thread ends the process. It cleans up nothing: a local cluster of Ray
notices the end of its driver by itself. Loads without torch and Ray.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Generator
from typing import NoReturn

from jobs.guarded_output import STDERR, is_writable

REFUSED, STOPPED = 2, 4  # exit codes, as of all commands
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
WRITE_S = 0.3
GRACE_S = 1.5  # after the last signal, for an end in good order


def is_request(number: int, *, is_first: bool) -> bool:
    """Return True if a signal asks this process to stop, or to stop at once.

    SIGHUP asks only once: a shell and the kernel both send it when a terminal is closed, and a
    service manager sends it after SIGTERM.
    """
    return number in STOP_SIGNALS and (is_first or number != signal.SIGHUP)


def stop_reason(number: int) -> str:
    """Return the reason in messages of a run that a signal stopped."""
    return f"by {signal.Signals(number).name}; run it again to go on"


def end_process(message: str, exit_code: int) -> NoReturn:
    """Print one line and end the process at once, whatever its threads do.

    Args:
        message: text of our own, without secrets and without names from users.
    """
    # not through sys.stderr, whose lock the held thread may hold
    with contextlib.suppress(OSError):
        if is_writable(STDERR, WRITE_S):  # the reader of a pipe may have stopped reading
            os.write(STDERR, f"nagfarm: {message}\n".encode())
    os._exit(exit_code)


@contextlib.contextmanager
def ended_after(seconds: float, message: str, exit_code: int) -> Generator[None]:
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
        end_process(f"stopped: {stop_reason(number[0])}", STOPPED)
