"""Output that cannot be written is dropped and counted, so that no run ends with its log.

A log's disk is full, the reader of a pipe has ended or no longer reads, a terminal is gone: each
makes `print`, rich, logging and tqdm raise `OSError`, or wait for ever. `guard_output` puts a file
that does neither below `sys.stdout` and `sys.stderr`, so that it holds for all of them.
"""

import io
import os
import select
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from jobs.errors import OutputError

STDOUT, STDERR = 1, 2
CHUNK_BYTES = 4096  # a pipe that is ready takes so many without a wait
PATIENCE_S = 5.0  # for a reader that does not read, before a run drops what it has to say


@dataclass
class DroppedOutput:
    """The output of this process that could not be written.

    Args:
        is_log: True if stdout is the log of a run, like stderr. False if it is a result: then an
            error raises OutputError, and a reader may take its time.
        num_bytes: bytes dropped so far, of stdout and stderr together.
        reason: the operating system's latest reason; None if nothing was dropped.
    """

    is_log: bool = False
    num_bytes: int = 0
    reason: str | None = None


class GuardedFile(io.FileIO):
    """A file descriptor to which each write of a log succeeds: what it does not take is dropped."""

    def __init__(self, descriptor: int, dropped: DroppedOutput) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._dropped = dropped
        self._is_stuck = False

    @property
    def _is_log(self) -> bool:
        return self._dropped.is_log or self.fileno() == STDERR

    def write(self, data: Any, /) -> int:
        left = memoryview(data).cast("B")
        num_bytes = len(left)
        try:
            while left:
                self._wait()
                left = left[super().write(left[:CHUNK_BYTES]) or 0 :]
        except OSError as error:
            reason = error.strerror or str(error)
            if not self._is_log:
                raise OutputError(f"the output cannot be written: {reason}") from error
            self._dropped.num_bytes += len(left)
            self._dropped.reason = reason
        return num_bytes

    def _wait(self) -> None:
        """Wait for the reader. A log does not wait again for one that did not read in time."""
        patience_s = 0.0 if self._is_stuck else PATIENCE_S
        is_ready = is_writable(self.fileno(), patience_s if self._is_log else None)
        self._is_stuck = not is_ready
        if not is_ready:
            raise TimeoutError(None, "the reader of the output does not read")


def is_writable(descriptor: int, patience_s: float | None) -> bool:
    """Return True as soon as a descriptor takes output; None waits for ever."""
    poll = select.poll()  # one for each call, since threads may not share one
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(None if patience_s is None else patience_s * 1000))


def guard_output(*, is_log: bool = False) -> DroppedOutput:
    """Guard this process's stdout and stderr, and return the account of what they drop.

    Streams that were redirected inside the process stay as they are. A text that the encoding does
    not have is written with escapes. Nothing is written if a descriptor was closed at the start.
    """
    dropped = DroppedOutput(is_log)
    sys.stdout = _guarded(sys.stdout, STDOUT, dropped)
    sys.stderr = _guarded(sys.stderr, STDERR, dropped)
    return dropped


def _guarded(stream: TextIO | None, descriptor: int, dropped: DroppedOutput) -> TextIO:
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    try:
        is_own = stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):  # a stream in memory, or a closed one
        is_own = False
    if not is_own:
        return stream
    file = GuardedFile(descriptor, dropped)
    return io.TextIOWrapper(
        file, encoding=stream.encoding, errors="backslashreplace", write_through=True
    )
