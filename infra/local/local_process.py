"""A program on this machine: where it runs, its start in a session of its own, and its end.

The local S3 server, the local Ray cluster, its further nodes and the drivers of the chaos suite are
such programs.
"""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.ending import handled_signals

HOST = "127.0.0.1"
POLL_S = 0.1
LOG_LINES_SHOWN = 25


@dataclass(frozen=True)
class Place:
    """The machine on which a program runs: this one, or a network namespace that acts as one.

    Args:
        host: its address, by which the other programs reach it.
        prefix: words before a command that take it there.
    """

    host: str = HOST
    prefix: tuple[str, ...] = ()


HERE = Place()


class LocalProcess:
    """A running program, with the processes that it starts in its session.

    Args:
        command: program and arguments.
        log: file to which both of its outputs are appended.
        environment: its variables; None for those of this process.
        folder: its working directory; None for this process's.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._log = log
        self._is_suspended = False
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its session and process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Return True until the program ends or is suspended."""
        return self._process.poll() is None and not self._is_suspended

    def suspend(self) -> None:
        """Stop the program itself, and not what it has started. `end` and signals still end it."""
        self._is_suspended = True
        self._process.send_signal(signal.SIGSTOP)

    def is_ready_by(self, deadline: float, is_ready: Callable[[], bool]) -> bool:
        """Ask `is_ready` until it is True. Return False at the deadline or if the program ends.

        Args:
            deadline: by the monotonic clock, in seconds.
        """
        while time.monotonic() < deadline and self._process.poll() is None:
            if is_ready():
                return True
            time.sleep(POLL_S)
        return False

    def last_log_lines(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_LINES_SHOWN:])

    def ask_to_end(self) -> None:
        """Send SIGTERM to the process group."""
        self._signal(signal.SIGTERM)

    def wait(self) -> None:
        self._process.wait()

    def end(self, wait_s: float) -> None:
        """End the whole process group, by force after `wait_s` seconds. May be called again."""
        self.ask_to_end()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(wait_s)
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
            os.killpg(self._process.pid, signal.SIGCONT)


def free_ports(count: int) -> list[int]:
    """Return different ports of loopback on which no program listened a moment ago."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


def processes_naming(folder: Path) -> Iterator[psutil.Process]:
    """Yield the processes whose command line or environment names the folder, but not this one.

    The command line of a worker of Ray is only `ray::...`; its environment names the folder.
    """
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            words = (*process.cmdline(), *process.environ().values())
            if any(str(folder) in text for text in words):
                yield process


@contextlib.contextmanager
def stop_signal_as_interrupt() -> Generator[None]:
    """Make SIGTERM and a closing terminal end the program like Ctrl-C, so that it cleans up."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with handled_signals((signal.SIGTERM, signal.SIGHUP), interrupt):
        yield
