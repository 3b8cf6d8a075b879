"""Simulated runs of clips of given lengths, for the tests of a simulation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.plan.worker_kinds import WorkerKind
from jobs.settings.run_config import RunConfig, WorkerConfig
from jobs.simulation.conditions import ClipKind, ClipTimes, Conditions, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.outcome import Outcome
from jobs.simulation.simulate import SimulatedKind, simulate
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import VideoShape

START_S = 30.0
CONFIG = RunConfig(workers=WorkerConfig(recycle_after_clips=None))


@dataclass(frozen=True)
class Clips:
    """Clips of one kind of worker, in runs of equal times.

    Args:
        times: times of each run of clips, with their number.
    """

    times: Sequence[tuple[ClipTimes, int]]
    parallel: ParallelConfig = ONE_DEVICE
    model: str = "m"

    @classmethod
    def of(cls, *device_s: float, **others: float) -> "Clips":
        """Return one clip for each time on the device, with equal other times."""
        return cls([(ClipTimes(one, **others), 1) for one in device_s])  # type: ignore[arg-type]

    def kinds(self) -> list[tuple[ClipKind, int, ClipTimes]]:
        return [
            (ClipKind(self.model, VideoShape(5, 32, 32), index + 1, self.parallel), number, times)
            for index, (times, number) in enumerate(self.times)
        ]


def run(
    conditions: Conditions,
    *all_clips: Clips,
    config: RunConfig = CONFIG,
    starts_s: Sequence[float] = (START_S,),
    ended: list[int] | None = None,
) -> Outcome:
    """Simulate a run; the driver takes no time unless the conditions say so.

    Args:
        ended: gets an entry for each clip that ends.
    """
    kinds = [
        SimulatedKind(
            WorkerKind(clips.model, clips.parallel),
            Demand(
                clips.parallel,
                RankResources(1, num_gpus=1),
                sum(number for _, number, _ in clips.kinds()),
                config.workers.count,
            ),
            [(kind, number) for kind, number, _ in clips.kinds()],
        )
        for clips in all_clips
    ]
    timings = Timings(
        {kind: [times] for clips in all_clips for kind, _, times in clips.kinds()},
        {clips.model: starts_s for clips in all_clips},
    )
    return simulate(
        kinds,
        timings,
        Farm(conditions),
        config,
        lambda: None if ended is None else ended.append(1),
    )


def farm_of(num_devices: int, **changes: object) -> Conditions:
    """Return conditions under which the driver takes no time."""
    return replace(Conditions(num_devices, driver_s=0.0), **changes)  # type: ignore[arg-type]
