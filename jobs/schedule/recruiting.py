"""How many workers to keep, when to ask for them, and when none is to be had. Loads without torch.

Decides by the schedule's clock alone. A machine on which nothing loads costs one worker; a store that is away costs
only time.
"""

from jobs.errors import NoWorkersError
from jobs.schedule.events import WorkerNotLoaded
from jobs.schedule.outage import Outage

MAX_LOAD_FAILURES = 3  # in a row before one was ready


class Recruiting:
    """The workers of one pool.

    Args:
        num_wanted: workers to keep.
        outage: of the store, for how long to wait for it.
    """

    def __init__(self, num_wanted: int, outage: Outage) -> None:
        self.num_wanted = num_wanted
        self._outage = outage
        self._num_failures = 0
        self._not_before = 0.0  # while the store lets no worker load
        self._back_off_s = 0.0

    def is_open(self, now: float) -> bool:
        """Whether workers may be asked for."""
        return now >= self._not_before

    def ready(self) -> None:
        """A worker has loaded its model."""
        self._num_failures = 0
        self._back_off_s = 0.0

    def failed(self, failed: WorkerNotLoaded, num_left: int, now: float) -> NoWorkersError | None:
        """A worker has not: the others go on without it.

        Args:
            num_left: workers that are there, or are loading.

        Returns:
            Why the run ends, where there is no other.
        """
        if failed.is_store:
            self._back_off_s = self._outage.longer(self._back_off_s)
            self._not_before = now + self._back_off_s
        if failed.is_store or not failed.is_charged:
            return None
        self._num_failures += 1
        if not (failed.is_final or self._num_failures >= MAX_LOAD_FAILURES):
            return None
        is_waiting = not self.is_open(now) and self.num_wanted > 1  # for the store, with others
        if not num_left and not is_waiting:
            return NoWorkersError(f"no worker is to be had: {failed.message}")
        self.num_wanted -= 1
        self._num_failures = 0
        return None
