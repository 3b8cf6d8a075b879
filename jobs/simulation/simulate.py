"""A run in virtual time, from its clips to its outcome: one pool of workers after another.

Mirrors `jobs.run.run`. Loads without torch.
"""

import gc
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from jobs.config import RunConfig
from jobs.plan.worker_kinds import WorkerKind
from jobs.simulation.conditions import ClipKind, ClipTimes, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.outcome import Outcome
from jobs.simulation.pool import SimulatedPool
from jobs.types import ClipSpec, ModelIdentity
from nag.params import NagParams
from pipelines.request import GenerationRequest, SamplingParams


@dataclass(frozen=True)
class SimulatedKind:
    """The clips of one kind of worker.

    Args:
        num_workers: number of workers that the run wants, which fit into the farm.
        clips: number of clips of each kind, which the manifest mixes.
    """

    kind: WorkerKind
    num_workers: int
    clips: Sequence[tuple[ClipKind, int]]


def simulate(
    kinds: Sequence[SimulatedKind],
    timings: Timings,
    farm: Farm,
    config: RunConfig,
    clip_ended: Callable[[], None] = lambda: None,
) -> Outcome:
    """Simulate a run of all kinds.

    Args:
        farm: an unused farm, which belongs to this run alone.
        clip_ended: called after each clip, for a progress bar.
    """
    # millions of small values die young, and none of them is in a cycle
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        pools = [_run_kind(kind, timings, farm, config, clip_ended) for kind in kinds]
    finally:
        if was_enabled:
            gc.enable()
    wall_s, num_devices = farm.clock.now, farm.conditions.num_devices
    lost_s = dict(farm.lost_s)
    unused_s = num_devices * wall_s - farm.busy_s - sum(lost_s.values())
    lost_s["end"] = lost_s.get("end", 0.0) + max(0.0, unused_s)
    return Outcome(
        num_devices=num_devices,
        num_done=sum(pool.num_done for pool in pools),
        num_quarantined=sum(pool.num_quarantined for pool in pools),
        num_workers_lost=sum(pool.num_workers_lost for pool in pools),
        wall_s=wall_s,
        busy_s=farm.busy_s,
        lost_s=lost_s,
        halt=next((pool.halt for pool in pools if pool.halt), None),
    )


def _run_kind(
    kind: SimulatedKind,
    timings: Timings,
    farm: Farm,
    config: RunConfig,
    clip_ended: Callable[[], None],
) -> SimulatedPool:
    starts_s = timings.starts_s[kind.kind.model]
    pool = SimulatedPool(
        farm,
        kind.kind,
        config,
        kind.num_workers,
        _clips(kind, timings, farm),
        lambda: farm.random.choice(starts_s),
        clip_ended,
    )
    pool.start()
    for moment_s in farm.conditions.losses_s:
        if moment_s >= farm.clock.now:
            farm.clock.at(moment_s, pool.lose_busiest)
    while not pool.is_over and farm.clock.advance():
        pass
    pool.close()
    return pool


def _clips(
    kind: SimulatedKind, timings: Timings, farm: Farm
) -> Iterator[tuple[ClipSpec, ClipTimes]]:
    """Yield the clips of a kind of worker, mixed, each with times that were measured together."""
    turns = heapq.merge(
        *(_turns(clip_kind, num_clips) for clip_kind, num_clips in kind.clips),
        key=lambda turn: turn[0],
    )
    specs = {clip_kind: spec_of(clip_kind) for clip_kind, _ in kind.clips}
    for number, (_, clip_kind) in enumerate(turns):
        clip_id = f"{number:032x}"
        times = farm.random.choice(timings.clips[clip_kind])
        yield replace(specs[clip_kind], clip_id=clip_id), times


def _turns(kind: ClipKind, num_clips: int) -> Iterator[tuple[float, ClipKind]]:
    """Spread the clips of a kind evenly over a manifest, of which the order is not known."""
    return (((index + 0.5) / num_clips, kind) for index in range(num_clips))


def spec_of(kind: ClipKind) -> ClipSpec:
    """Return a clip of a kind; no decision of a schedule depends on its other fields."""
    sampling = SamplingParams(kind.num_inference_steps, 1.0, None, 0)
    request = GenerationRequest("simulated", "", kind.shape, 24.0, sampling, NagParams())
    model = ModelIdentity(kind.model, "", "", "", "")
    return ClipSpec("0" * 32, "simulated", model, request, kind.parallel)
