"""The clips of one kind in a run: its counts, its steps so far, its rate and its seconds. Pure.

A kind is a model, a size, a number of steps and a group of devices: its clips take equally long.
Decides that a clip in flight counts by its steps, so that there is a rate before a clip has ended.
"""

import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jobs.manifest.rows import Catalog
from jobs.plan.buckets import predicted_s
from jobs.plan.plan import Plan
from jobs.records.run_status import KindStatus
from jobs.run.progress.time_left import WINDOW_S, WorkDone
from jobs.simulation.conditions import ClipKind
from jobs.types import ClipSpec

MAX_TIMES = 64  # measured clips of a kind
MIN_SPREAD = 1.1


class PlannedKind(NamedTuple):
    """The clips of one kind that a run is to render.

    Args:
        predicted_s: predicted seconds of a clip on all its devices together, right up to a factor
            that all kinds share; 0 if unknown.
    """

    kind: ClipKind
    num_clips: int
    predicted_s: float = 0.0


def planned_kinds(plan: Plan, catalog: Catalog) -> Iterator[PlannedKind]:
    """Yield the kinds of a plan's pending clips, in the order of the run."""
    for bucket in plan.buckets:
        if bucket.num_pending:
            device_s = predicted_s(bucket, catalog) * bucket.parallel.degree
            yield PlannedKind(ClipKind.of(bucket), bucket.num_pending, device_s)


def kind_of(spec: ClipSpec) -> ClipKind:
    request = spec.request
    steps = request.sampling.num_inference_steps
    return ClipKind(spec.model.name, request.shape, steps, spec.parallel)


class KindTally:
    """The clips of one kind so far. A clip in flight counts as the share of its steps."""

    def __init__(self, planned: PlannedKind) -> None:
        self.planned = planned
        self.num_clips = planned.num_clips
        self.num_committed = self.num_quarantined = 0
        self.times_s: deque[float] = deque(maxlen=MAX_TIMES)  # on the device, of each clip
        self.shares: list[float] = []  # one for each clip in flight
        self._begun: dict[str, tuple[WorkDone, WorkDone]] = {}  # their first and last known step
        self._sampled_done = 0.0
        self._active_s = 0.0  # time in which devices had some
        self._history: deque[WorkDone] = deque()  # clips by active seconds

    @property
    def kind(self) -> ClipKind:
        return self.planned.kind

    @property
    def num_ended(self) -> int:
        return self.num_committed + self.num_quarantined

    @property
    def num_done(self) -> float:
        """The clips that have ended, and the parts of those in flight."""
        return self.num_ended + sum(self.shares)

    @property
    def num_waiting(self) -> int:
        """The clips that no device has begun; a worker may hold some of them."""
        num_begun = sum(share > 0 for share in self.shares)
        return max(self.num_clips - self.num_ended - num_begun, 0)

    @property
    def clip_s(self) -> float | None:
        return statistics.median(self.times_s) if self.times_s else None

    @property
    def pace_s(self) -> float | None:
        """The seconds of a clip by the steps of those in flight; None before a second step."""
        paces = [
            (last.at_s - first.at_s) / (last.work - first.work)
            for first, last in self._begun.values()
            if last.work > first.work
        ]
        return statistics.median(paces) if paces else None

    @property
    def spread(self) -> float:
        """The factor between a usual clip and one of the longest of ten."""
        if len(self.times_s) < 2:
            return MIN_SPREAD
        deciles = statistics.quantiles(self.times_s, n=10, method="inclusive")
        return max(deciles[8] / deciles[4], MIN_SPREAD) if deciles[4] else MIN_SPREAD

    @property
    def clips_per_hour(self) -> float | None:
        """The rate in the last half hour in which devices had clips of this kind."""
        if len(self._history) < 2:
            return None
        first, last = self._history[0], self._history[-1]
        done, time_s = last.work - first.work, last.at_s - first.at_s
        return done / time_s * 3600 if done > 0 and time_s > 0 else None

    @property
    def longest_share(self) -> float:
        """The largest part of a clip that is left."""
        return 1.0 if self.num_waiting else max((1 - share for share in self.shares), default=0.0)

    def sample(self, shares: Mapping[str, float], now: float, since_s: float) -> float:
        """Note the clips in flight; return the clips done since the last sample, with parts.

        Args:
            shares: the share of each, by id.
            since_s: seconds since the last sample.
        """
        has_begun = any(self.shares) or any(shares.values())  # one that only waits is not begun
        self.shares = list(shares.values())
        self._begun = {
            clip_id: self._steps_of(clip_id, WorkDone(now, share))
            for clip_id, share in shares.items()
            if share > 0
        }
        before, self._sampled_done = self._sampled_done, self.num_done
        done = self._sampled_done - before
        if not has_begun and not done:  # short clips may begin and end between two samples
            return done
        self._active_s += since_s
        while self._history and self._history[0].at_s < self._active_s - WINDOW_S:
            self._history.popleft()
        self._history.append(WorkDone(self._active_s, self.num_done))
        return done

    def _steps_of(self, clip_id: str, found: WorkDone) -> tuple[WorkDone, WorkDone]:
        """Return the first and the last moment at which a step of a clip became known."""
        first, last = self._begun.get(clip_id, (found, found))
        return first, found if found.work > last.work else last

    def status(self) -> KindStatus:
        kind = self.kind
        return KindStatus(
            model=kind.model,
            num_frames=kind.shape.num_frames,
            height=kind.shape.height,
            width=kind.shape.width,
            num_inference_steps=kind.num_inference_steps,
            num_devices=kind.parallel.degree,
            num_clips=max(self.num_clips, self.num_ended),
            num_committed=self.num_committed,
            num_quarantined=self.num_quarantined,
            num_in_flight=len(self.shares),
            clips_per_hour=self.clips_per_hour,
            clip_s=self.clip_s,
        )
