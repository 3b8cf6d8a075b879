"""The deadline of a run: the time that is left, and the clips of the plan that can still end in it.

Reads the driver's clock, and the records of earlier runs for the times of their clips.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from jobs.errors import DeadlineReachedError
from jobs.plan.buckets import Part, predicted_s
from jobs.plan.worker_kinds import WorkerKind, pending_kinds, pending_parts
from jobs.run.documents import OpenedManifest
from jobs.run.tally import RunTally
from jobs.schedule.pace import ClipSeconds, ClipSize, Pace
from jobs.simulation.measured import Measured, read_measured
from jobs.text import counted, duration
from jobs.timetable.clock_times import Deadline

MAX_RECORDS = 200  # ids are random, so that the first ones are a fair choice


@dataclass(frozen=True)
class TimeLimit:
    """The deadline of a run, with the times that its clips are expected to take.

    Args:
        paces: times of the clips of each kind of worker; a run adds its own.
        clock: returns seconds since 1970.
    """

    deadline: Deadline
    paces: dict[WorkerKind, Pace]
    clock: Callable[[], float] = time.time

    def seconds_left(self) -> float:
        return self.deadline.at - self.clock()

    def has_room_for(self, kind: WorkerKind, part: Part) -> bool:
        """Return True if a clip that begins now may end in time, as far as is known."""
        size = ClipSize(part.bucket.shape, part.bucket.num_inference_steps)
        expected = self.paces[kind].of(size)
        least_s = 0.0 if expected is None else expected.total_s
        return 0 < self.seconds_left() >= least_s

    def has_room_for_any(self, kind: WorkerKind, parts: Iterable[Part]) -> bool:
        return any(self.has_room_for(kind, part) for part in parts)

    def check(self, tally: RunTally, now: float) -> None:
        """Raise if clips are left at the end of a run.

        Args:
            now: seconds of the tally's clock.

        Raises:
            DeadlineReachedError: the message says how many, and how long they would take.
        """
        if not tally.num_left:
            return
        left_s = tally.time_for(tally.num_left, now)
        pace = "" if left_s is None else f", about {duration(left_s)} at this pace"
        raise DeadlineReachedError(
            f"by the deadline {self.deadline}: {tally.num_left:,} of "
            f"{counted(tally.num_clips, 'clip')} are left{pace}; run it again to go on"
        )


def time_limit_of(deadline: Deadline, opened: OpenedManifest) -> TimeLimit:
    """Return the limit of a run, with the times in the records of earlier runs.

    Raises:
        StoreError: the store does not answer.
    """
    plan, kinds = opened.plan, pending_kinds(opened.plan)
    measured = Measured({}, {}, 0)
    if plan.num_done:
        models = {kind.model for kind in kinds}
        measured = read_measured(opened.store, models, max_records=MAX_RECORDS)
    return TimeLimit(deadline, {kind: _pace_of(kind, opened, measured) for kind in kinds})


def _pace_of(kind: WorkerKind, opened: OpenedManifest, measured: Measured) -> Pace:
    predicted = {
        ClipSize(part.bucket.shape, part.bucket.num_inference_steps): predicted_s(
            part.bucket, opened.catalog
        )
        for part in pending_parts(opened.plan, kind)
    }
    earlier = {
        ClipSize(found.shape, found.num_inference_steps): [
            ClipSeconds(one.device_s, one.host_s + one.upload_s) for one in times
        ]
        for found, times in measured.clips.items()
        if (found.model, found.parallel) == (kind.model, kind.parallel)
    }
    return Pace(predicted, earlier)
