"""The deadline of a run: which clips can still end by then, on which worker.

Decides that a clip is not started, or is taken back from a worker's queue, since it would end too
late. A clip of which no time is known is started. Uses the schedule's clock alone. Loads without
torch.
"""

import math
from collections.abc import Iterable, Iterator

from jobs.schedule.events import Attempt
from jobs.schedule.pace import ClipSeconds, ClipSize, Pace
from jobs.schedule.pooled_worker import LoadedWorker
from jobs.types import StageTiming

UNKNOWN = ClipSeconds(0.0, 0.0)


class RunDeadline:
    """The moment at which a run must have ended; never, until it is set.

    Args:
        pace: expected times of the clips; None for a run without a deadline.
    """

    def __init__(self, pace: Pace | None) -> None:
        self._pace = pace
        self._at = math.inf

    @property
    def is_set(self) -> bool:
        return self._at < math.inf

    def set(self, at: float) -> None:
        self._at = at

    def learn(self, attempt: Attempt, timings: Iterable[StageTiming]) -> None:
        """Add the times of a committed clip."""
        if self._pace is not None:
            self._pace.learn(attempt.spec, timings)

    def can_end(self, attempt: Attempt, now: float) -> bool:
        """Return True if the clip would end in time on a worker that begins with it now."""
        return now + self._seconds(attempt).total_s <= self._at

    def can_end_on(self, worker: LoadedWorker, attempt: Attempt, now: float) -> bool:
        """Return True if the clip would end in time behind the clips that a worker has."""
        if not self.is_set:
            return True
        ends = [device_end for _, device_end in self._device_ends(worker, now)]
        free_at = ends[-1] if ends else now
        return free_at + self._seconds(attempt).total_s <= self._at

    def late(self, worker: LoadedWorker, now: float) -> list[str]:
        """Return the clips in a worker's queue that would end too late."""
        queued = {one.spec.clip_id for one in worker.queued} - worker.recalled
        return [
            attempt.spec.clip_id
            for attempt, device_end in self._device_ends(worker, now)
            if attempt.spec.clip_id in queued
            and device_end + self._seconds(attempt).rest_s > self._at
        ]

    def _device_ends(self, worker: LoadedWorker, now: float) -> Iterator[tuple[Attempt, float]]:
        """Yield the clips that a worker's device has not ended, each with its expected end there.

        The device began with the oldest when the worker got it, or when its last clip ended: at the
        latest, since a clip is encoded and uploaded beside the next one.
        """
        at, began_at = now, worker.ended_at
        for attempt in worker.attempts.values():
            if not worker.is_past_device(attempt.spec.clip_id):
                past_s = now - max(began_at, attempt.started_at)
                at += max(0.0, self._seconds(attempt).device_s - past_s)
                began_at = now  # for the clips behind it
                yield attempt, at

    def _seconds(self, attempt: Attempt) -> ClipSeconds:
        found = None if self._pace is None else self._pace.of(ClipSize.of(attempt.spec))
        if found is None:
            return UNKNOWN
        return found if attempt.node is None else ClipSeconds(0.0, found.rest_s)  # it lies encoded
