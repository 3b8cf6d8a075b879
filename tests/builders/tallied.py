"""Simulated runs with the tally of a real run beside them, for tests of the time left."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.plan.worker_kinds import WorkerKind
from jobs.run.progress.kind_tally import PlannedKind
from jobs.run.progress.tally import RunTally
from jobs.run.progress.time_left import TimeLeft
from jobs.schedule.events import Attempt, WorkerId
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share
from jobs.settings.run_config import RunConfig, WorkerConfig
from jobs.simulation.conditions import ClipKind, ClipTimes, Conditions, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.pool import SimulatedPool
from jobs.simulation.simulate import SimulatedKind, SimulatedRun
from jobs.simulation.worker import HeldClip, SimulatedWorker
from jobs.types import ClipDone, ClipProgress, ClipSpec, WorkerHeartbeat
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import VideoShape

CONFIG = RunConfig(workers=WorkerConfig(recycle_after_clips=None))
START_S = 60.0
LOOK_EVERY_S, LOOKS_PER_ESTIMATE = 10.0, 3


@dataclass(frozen=True)
class KindOfClips:
    """Clips of one kind, whose times are drawn from `device_s`.

    Args:
        predicted_s: seconds that the plan predicts; 0 if it predicts none.
    """

    num_clips: int
    device_s: Sequence[float]
    predicted_s: float = 0.0
    model: str = "m"
    num_steps: int = 30
    parallel: ParallelConfig = ONE_DEVICE

    @property
    def kind(self) -> ClipKind:
        return ClipKind(self.model, VideoShape(5, 32, 32), self.num_steps, self.parallel)


class TalliedRun(SimulatedRun):
    """A simulated run that writes down the time left, as its tally estimates it.

    Args:
        all_kinds: the clips; those of one model come together.
    """

    def __init__(self, all_kinds: Sequence[KindOfClips], conditions: Conditions) -> None:
        planned = [PlannedKind(one.kind, one.num_clips, one.predicted_s) for one in all_kinds]
        self.tally = RunTally(sum(one.num_clips for one in all_kinds), 0.0, planned)
        self.estimates: list[tuple[float, TimeLeft | None]] = []
        self.pools: list[TalliedPool] = []
        self._num_looks = 0
        self.farm = Farm(conditions)
        groups: dict[WorkerKind, list[KindOfClips]] = {}
        for one in all_kinds:
            groups.setdefault(WorkerKind(one.model, one.parallel), []).append(one)
        simulated = [
            SimulatedKind(
                kind,
                Demand(
                    kind.parallel,
                    RankResources(1, num_gpus=1),
                    sum(one.num_clips for one in of),
                    None,
                ),
                [(one.kind, one.num_clips) for one in of],
            )
            for kind, of in groups.items()
        ]
        timings = Timings(
            {one.kind: [ClipTimes(s, 2.0, 1.0) for s in one.device_s] for one in all_kinds},
            {one.model: [START_S] for one in all_kinds},
        )
        super().__init__(simulated, timings, self.farm, CONFIG, lambda: None)
        self.farm.clock.after(LOOK_EVERY_S, self._look_at)

    def _pool_of(self, kind: SimulatedKind, num_workers: int) -> SimulatedPool:
        pool = TalliedPool(
            self.farm,
            self._config,
            Share(kind.demand, Schedule(self._config, num_workers)),
            self.clips_of(kind),
            draw_start_s=lambda: START_S,
            clip_ended=lambda: None,
            plan_ended=self._plan_ended,
        )
        pool.tally = self.tally
        self.pools.append(pool)
        return pool

    def clips_of(self, kind: SimulatedKind) -> Iterator[tuple[ClipSpec, ClipTimes]]:
        """Yield clips with ids that no clip of another kind of worker has."""
        prefix = f"{len(self.pools):04x}"
        for spec, times in super().clips_of(kind):
            yield replace(spec, clip_id=prefix + spec.clip_id[len(prefix) :]), times

    def _look_at(self) -> None:
        now = self.farm.clock.now
        for pool in self.pools:
            pool.report()
        self.tally.tick(now)
        self._num_looks += 1
        if self._num_looks % LOOKS_PER_ESTIMATE == 0:
            self.estimates.append((now, self.tally.left()))
        self.farm.clock.after(LOOK_EVERY_S, self._look_at)

    def at_share(self, share: float) -> tuple[float, TimeLeft | None]:
        """Return the seconds that were left after a share of the run, and the estimate."""
        wall_s = self.farm.clock.now
        at_s, left = min(self.estimates, key=lambda one: abs(one[0] - share * wall_s))
        return wall_s - at_s, left


class TalliedPool(SimulatedPool):
    """A simulated pool whose events reach a tally, as those of a dispatcher do."""

    tally: RunTally

    def report(self) -> None:
        """Send the heartbeat of each worker, with the steps of its clip."""
        for worker in self._workers.values():
            clips = tuple(map(partial(self._progress, worker), worker.held.values()))
            self.tally.worker_heartbeat(WorkerHeartbeat(clips, 0))

    def _progress(self, worker: SimulatedWorker, clip: HeldClip) -> ClipProgress:
        spec, step = clip.attempt.spec, None
        if clip.stage == "denoise":
            share = (self._clock.now - worker.computing_since) / clip.times.device_s
            step = int(share * spec.request.sampling.num_inference_steps)
        return ClipProgress(spec.clip_id, clip.stage, step, 0.0)

    def _be_ready(self, worker: SimulatedWorker) -> None:
        if not worker.is_gone:
            self.tally.worker_ready()
        super()._be_ready(worker)

    def _stop(self, worker: SimulatedWorker) -> None:
        label = f"worker {worker.number}"
        self.tally.worker_stopped(label, is_ready=worker.is_ready, is_lost=False)
        super()._stop(worker)

    def _start_clip(self, number: WorkerId, attempt: Attempt) -> None:
        self.tally.clip_started(f"worker {number}", attempt, self._clock.now)
        super()._start_clip(number, attempt)

    def _end_clip(self, worker: SimulatedWorker, clip: HeldClip) -> None:
        spec, times = clip.attempt.spec, clip.times
        if not worker.is_gone:
            time = DeviceTime(times.device_s, 0.0)
            done = ClipDone(spec.clip_id, spec.name, clip.attempt.number, (), time)
            self.tally.clip_done(done, self._clock.now)
        super()._end_clip(worker, clip)

    def _quarantine(self, clip_id: str) -> None:
        self.tally.in_flight.end(clip_id)
        self.tally.kinds.clip_quarantined(clip_id)
        self.tally.num_quarantined += 1
        super()._quarantine(clip_id)
