"""A thread beside a program's main loop, which cannot die unnoticed, and a queue of its work."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from jobs.errors import SideThreadError

CLOSE_POLL_S = 0.1
T = TypeVar("T")


class SideThread(threading.Thread):
    """A daemon thread. If it dies of an exception, `check` raises in the thread that relies on it.

    Args:
        name: name in messages, such as "lease".
        work: runs once, in the thread; it returns when the thread's work is done.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._work = work
        self._death: str | None = None

    def run(self) -> None:
        try:
            self._work()
        # Whatever it is: a thread that is gone must be noticed.
        except BaseException as error:
            self._death = f"{type(error).__name__}: {error}"
            raise  # `threading.excepthook` logs the traceback

    def check(self) -> None:
        """Raise SideThreadError if the thread has died of an exception."""
        if self._death is not None:
            raise SideThreadError(f"the {self.name} thread died: {self._death}")


class SideQueue(Generic[T]):
    """The work of one side thread, in order. The program adds to it and never waits for it.

    Its thread goes through it with `for`: the oldest entry comes again and again until `done`.

    Args:
        name: name of the thread in messages.
        work: runs once, in the thread.
    """

    def __init__(self, name: str, work: Callable[[], None]) -> None:
        self._waiting: deque[T] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_abandoned = False
        self._thread = SideThread(name, work)

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, entry: T) -> bool:
        """Add an entry, unless the queue is closed; return True if it was added.

        The first entry starts the thread.
        """
        with self._changed:
            if self._is_closing:
                return False
            self._waiting.append(entry)
            self._changed.notify()
            if self._thread.ident is None:
                self._thread.start()
            return True

    def check(self) -> None:
        """Raise SideThreadError if the thread has died of an exception."""
        self._thread.check()

    def close(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> list[T]:
        """Wait until the thread has done all its work, for a limited time.

        Args:
            timeout_s: the longest wait, in seconds.
            is_enough: polled during the wait; True ends it.

        Returns:
            The entries that are not done and will not be.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        deadline = time.monotonic() + timeout_s
        while (
            self._thread.is_alive()
            and not is_enough()
            and (left_s := deadline - time.monotonic()) > 0
        ):
            self._thread.join(min(left_s, CLOSE_POLL_S))
        with self._changed:
            self._is_abandoned = True
            self._changed.notify()
            return list(self._waiting)

    def __iter__(self) -> Iterator[T]:
        """Yield the oldest entry, for the thread, until the queue is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting or self._is_abandoned:
                    return
                entry = self._waiting[0]
            yield entry

    def done(self) -> bool:
        """Remove the oldest entry. Return False if it is too late: `close` has returned it."""
        with self._changed:
            if not self._is_abandoned:
                self._waiting.popleft()
            return not self._is_abandoned

    def pause(self, pause_s: float) -> bool:
        """Let the thread wait. Return False if `close` has ended its work meanwhile."""
        with self._changed:
            return not self._changed.wait_for(lambda: self._is_abandoned, pause_s)
