"""The gallery of a run's output, refreshed in a thread beside the run.

Decides when. A refresh takes at most a tenth of the thread's time, however many clips there are. It
fails no run: what goes wrong is said once, and the next refresh makes up for it.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from jobs.ending import stopped_by_signals
from jobs.errors import DeadlineReachedError, JobError, StoppedError
from jobs.report.gallery import Gallery
from jobs.report.links import links_of
from jobs.report.target import Target
from jobs.run.progress.long_work import long_work
from jobs.side_thread import SideThread
from jobs.store.store import Store
from jobs.text import duration

FIRST_S = 10.0  # from the begin of the run to the first refresh, or the interval if that is less
MAX_SHARE = 0.1  # a refresh may take this much of the time between two
END_S = 600.0  # the last refresh of a run that has ended may take so long
ASKED_END_S = 2.0  # the same of a run that was asked to stop: `ray job stop` waits for 3 s


class GalleryRefresh:
    """Refreshes a gallery inside a `with` block, and for the last time at the end of the block.

    A block that is refused leaves the output as it is, unless it takes longer than `FIRST_S`.

    Args:
        store: the output.
        every_s: seconds between two refreshes.
        say: prints a line.

    Raises:
        RefusedError: the gallery that is there has links that cannot be made now.
    """

    def __init__(self, store: Store, every_s: float, say: Callable[[str], None]) -> None:
        target = Target(store, is_output=True)
        self._gallery = Gallery(store, target, links_of(store, target), every_s)
        self._every_s = every_s
        self._say = say
        self._is_over = threading.Event()
        self._is_last_wanted = True
        self._thread = SideThread("gallery", self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_last_wanted = error is None or isinstance(error, StoppedError)
        self._is_over.set()
        end_s = ASKED_END_S if _is_asked(error) else END_S
        try:
            with stopped_by_signals(), long_work("bringing the gallery up to date"):
                self._thread.join(end_s)
        except StoppedError:
            end_s = 0.0  # the run has ended before
        if self._thread.is_alive() and self._is_last_wanted:
            self._say(
                f"the gallery was not brought up to date within {duration(end_s)}; "
                "nagfarm report does so"
            )

    def _run(self) -> None:
        """Refresh at an interval until the block is over, and once more then."""
        trouble, pause_s = "", min(self._every_s, FIRST_S)
        while True:
            is_running = not self._is_over.wait(pause_s)
            if not (is_running or self._is_last_wanted):
                return
            began_s = time.monotonic()
            try:
                self._gallery.refresh(is_running=is_running)
                trouble = ""
            except JobError as error:
                if str(error) != trouble:
                    trouble = str(error)
                    self._say(f"the gallery could not be refreshed: {trouble}")
            if not is_running:
                return
            took_s = time.monotonic() - began_s
            pause_s = max(self._every_s, took_s * (1 / MAX_SHARE - 1))


def _is_asked(error: BaseException | None) -> bool:
    """Return True if a run ends since it was asked to, and not of its own failure or deadline."""
    if not isinstance(error, StoppedError) or isinstance(error, DeadlineReachedError):
        return False
    return not isinstance(error.__cause__, JobError)
