"""The kinds of worker of a run, each with the setup of its workers, its demand and its clips.

Decides, in a run with a deadline, which clips of the plan can still end in the time that is left.
Reads the driver's clock, and the records of earlier runs for the times of their clips.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.worker_pool import PoolPlan
from jobs.errors import DeadlineReachedError, ManifestError
from jobs.plan.buckets import Part, predicted_s
from jobs.plan.demand import Demand
from jobs.plan.worker_kinds import (
    WorkerKind,
    demand_of,
    pending_clips,
    pending_kinds,
    pending_parts,
)
from jobs.run.documents import OpenedManifest
from jobs.run.input_uploads import InputUploads
from jobs.run.progress.tally import RunTally
from jobs.schedule.pace import ClipSeconds, ClipSize, Pace
from jobs.settings.run_config import RunConfig
from jobs.simulation.measured import Measured, read_measured
from jobs.text import counted, duration
from jobs.timetable.clock_times import Deadline
from jobs.types import ClipSpec
from jobs.worker.setup import ModelLoader, WorkerSetup
from pipelines.cost.activations import Clip

MAX_EXTREMES = 8  # kinds of clip, the smallest and again the largest
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

    def check(self, tally: RunTally) -> None:
        """Raise if clips are left at the end of a run.

        Raises:
            DeadlineReachedError: the message says how many, and how long they would take.
        """
        if not tally.num_left:
            return
        left = tally.kinds.time_left()
        pace = "" if left is None else f", about {duration(left.likely_s)} at this pace"
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


def _extreme_clips(parts: Iterable[Part]) -> tuple[Clip, ...]:
    """Return the smallest and the largest kinds of clip, whose memory a worker compares."""
    buckets = [part.bucket for part in parts]
    clips = {Clip(bucket.shape, bucket.method, bucket.parallel) for bucket in buckets}

    def volume(clip: Clip) -> tuple[int, str]:
        shape = clip.shape
        return shape.num_frames * shape.height * shape.width, clip.method

    ordered = sorted(clips, key=volume)
    return tuple(dict.fromkeys((*ordered[:MAX_EXTREMES], *ordered[-MAX_EXTREMES:])))


@dataclass(frozen=True)
class PoolPlans:
    """Makes the plan of each kind of worker of one run.

    Args:
        config: settings of the run.
        limit: time until the deadline; None for a run without one.
        manifest_changed: called with the error if the manifest, or a file that it names, changes
            while it is read.
        uploads: the uploads of the clips' images and videos.
        is_forced: True to render also clips that need more memory than a device has, by estimate.
    """

    run_id: str
    opened: OpenedManifest
    config: RunConfig
    loader: ModelLoader
    limit: TimeLimit | None
    manifest_changed: Callable[[ManifestError], None]
    uploads: InputUploads
    is_forced: bool = False

    def all(self) -> list[PoolPlan]:
        """Return the plans of all kinds that have pending clips, in the order of the run."""
        return [self._of(kind, number) for kind, number in pending_kinds(self.opened.plan).items()]

    def _of(self, kind: WorkerKind, num_pending: int) -> PoolPlan:
        opened, config = self.opened, self.config
        entry = opened.catalog.get(kind.model)

        def demand(view: ClusterView) -> Demand:
            machines, workers = view.machines(), config.workers
            wanted = demand_of(kind, opened.catalog, workers, machines, num_pending)
            return replace(wanted, held_by_driver=view.held_by_driver)

        setup = WorkerSetup(
            model=entry.config,
            weights=entry.weights,
            output=opened.store.uri,
            store=opened.config.store,
            encoding=opened.config.encoding,
            spool_folder=config.workers.spool_folder,
            run_id=self.run_id,
            num_threads=config.workers.num_cpus,
            loader=self.loader,
            parallel=kind.parallel,
            clips=_extreme_clips(pending_parts(opened.plan, kind)),
            is_forced=self.is_forced,
        )
        if (limit := self.limit) is None:
            return PoolPlan(setup, demand, self._clips(kind, lambda _: True))
        return PoolPlan(
            setup,
            demand,
            self._clips(kind, partial(limit.has_room_for, kind)),
            limit.paces[kind],
            partial(limit.has_room_for_any, kind, pending_parts(opened.plan, kind)),
        )

    def _clips(
        self, kind: WorkerKind, is_wanted: Callable[[Part], bool]
    ) -> Iterator[ClipSpec | None]:
        """Yield the clips of a kind until the manifest changes; None while one is not ready."""
        try:
            yield from self.uploads.before(pending_clips(self.opened.plan, kind, is_wanted))
        except ManifestError as error:
            self.manifest_changed(error)
