"""A thread beside a program's main loop, which cannot die unnoticed."""

import threading
from collections.abc import Callable

from jobs.errors import SideThreadError


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
