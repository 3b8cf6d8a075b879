"""The number of workers to keep, and the moments at which new ones may be started.

Uses the schedule's clock alone. A node on which no model loads costs one worker of the number; a
store that is away costs only time. Loads without torch.
"""

from jobs.errors import ModelNotLoadedError
from jobs.schedule.events import WorkerNotLoaded
from jobs.schedule.outage import Outage

MAX_LOAD_FAILURES = 3  # in a row, before `num_wanted` is lowered


class Recruiting:
    """The wanted number of workers of one pool, and the failures to load them.

    Args:
        num_wanted: number of workers to keep.
        outage: the store's outage, for the length of the back-off.
    """

    def __init__(self, num_wanted: int, outage: Outage) -> None:
        self.num_wanted = num_wanted
        self._outage = outage
        self._num_failures = 0
        self._not_before = 0.0  # back-off while the store lets no worker load
        self._back_off_s = 0.0

    def is_open(self, now: float) -> bool:
        """Return True if workers may be started now."""
        return now >= self._not_before

    def record_loaded(self) -> None:
        """Reset the count of failures and the back-off."""
        self._num_failures = 0
        self._back_off_s = 0.0

    def record_failure(
        self, failed: WorkerNotLoaded, num_left: int, now: float
    ) -> ModelNotLoadedError | None:
        """Record a failed model load. After MAX_LOAD_FAILURES in a row, lower num_wanted by one.

        Args:
            num_left: number of workers that are loaded or still loading.

        Returns:
            The error that ends the work on the model if no worker is left; None otherwise.
        """
        if failed.is_store:
            self._back_off_s = self._outage.next_back_off(self._back_off_s)
            self._not_before = now + self._back_off_s
        if failed.is_store or not failed.is_charged:
            return None
        self._num_failures += 1
        if not (failed.is_final or self._num_failures >= MAX_LOAD_FAILURES):
            return None
        # others wait for the store, and are started again after the back-off
        is_waiting = not self.is_open(now) and self.num_wanted > 1
        if not num_left and not is_waiting:
            return ModelNotLoadedError(f"no worker could be started: {failed.message}")
        self.num_wanted -= 1
        self._num_failures = 0
        return None
