"""A run in virtual time, from its clips to its outcome.

Mirrors `jobs.cluster.dispatcher`: the kinds of worker begin in the order of the plan, as soon as
places are free for them (`jobs.schedule.sharing` decides). Loads without torch.
"""

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from jobs.plan.demand import Demand
from jobs.plan.worker_kinds import WorkerKind
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share, first_with_room, room_seen
from jobs.settings.run_config import RunConfig
from jobs.simulation.conditions import ClipKind, ClipTimes, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.outcome import Outcome
from jobs.simulation.pool import SimulatedPool
from jobs.types import ClipSpec, ModelIdentity
from nag.params import NagParams
from pipelines.request import GenerationRequest, SamplingParams

TURN_S = 0.5  # between two looks at the places, once the plan of a kind is over
NEVER_S = 1e12


@dataclass(frozen=True)
class SimulatedKind:
    """The clips of one kind of worker.

    Args:
        demand: workers that the run wants.
        clips: number of clips of each kind, in the order of the run.
    """

    kind: WorkerKind
    demand: Demand
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
    run = SimulatedRun(kinds, timings, farm, config, clip_ended)
    # millions of small values die young, and none of them is in a cycle
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        run.run()
    finally:
        if was_enabled:
            gc.enable()
    return run.outcome()


class SimulatedRun:
    """The kinds of a run that have begun, and those that wait for places.

    The arguments are those of `simulate`.
    """

    def __init__(
        self,
        kinds: Sequence[SimulatedKind],
        timings: Timings,
        farm: Farm,
        config: RunConfig,
        clip_ended: Callable[[], None],
    ) -> None:
        # a virtual worker never falls silent
        stall = replace(config.stall, heartbeat_timeout_s=NEVER_S)
        self._coming, self._config = list(kinds), replace(config, stall=stall)
        self._timings, self._farm, self._clip_ended = timings, farm, clip_ended
        self._machines = farm.machines(config.workers.num_cpus)
        self._pools: list[SimulatedPool] = []
        self._ended: list[SimulatedPool] = []
        self._is_turning = False

    def run(self) -> None:
        """Let all events happen until the last kind has ended."""
        self._begin_kinds()
        for moment_s in self._farm.conditions.losses_s:
            self._farm.clock.at(moment_s, self._lose_busiest)
        while self._pools and self._farm.clock.advance():
            for pool in self._pools:
                if pool.is_over:
                    self._end(pool)
                    break

    def outcome(self) -> Outcome:
        pools, farm = [*self._ended, *self._pools], self._farm
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

    # the kinds

    def _begin_kinds(self) -> None:
        """Begin the kinds for which places are free; the next one in any case if none renders."""
        while self._coming:
            demands = [kind.demand for kind in self._coming]
            found = first_with_room(demands, self._shares(), self._machines)
            if found is None:
                return
            index, num_workers = found
            pool = self._pool_of(self._coming.pop(index), num_workers)
            self._pools.append(pool)
            pool.start()

    def _pool_of(self, kind: SimulatedKind, num_workers: int) -> SimulatedPool:
        starts_s, farm = self._timings.starts_s[kind.kind.model], self._farm
        share = Share(kind.demand, Schedule(self._config, num_workers))
        return SimulatedPool(
            farm,
            self._config,
            share,
            self.clips_of(kind),
            draw_start_s=lambda: farm.random.choice(starts_s),
            clip_ended=self._clip_ended,
            plan_ended=self._plan_ended,
        )

    def clips_of(self, kind: SimulatedKind) -> Iterator[tuple[ClipSpec, ClipTimes]]:
        """Yield the clips of a kind of worker, each with its times."""
        return _clips(kind.clips, self._timings.clips, self._farm)

    def _shares(self, besides: SimulatedPool | None = None) -> list[Share]:
        return [pool.share for pool in self._pools if pool is not besides]

    def _end(self, pool: SimulatedPool) -> None:
        pool.close()
        self._pools.remove(pool)
        self._ended.append(pool)
        self._look()

    def _lose_busiest(self) -> None:
        """Kill the worker that has computed its clip for longest, if any computes."""
        if self._pools:
            min(self._pools, key=lambda pool: pool.computing_since).lose_busiest()

    # places that become free

    def _plan_ended(self) -> None:
        if not self._is_turning:
            self._is_turning = True
            self._farm.clock.after(TURN_S, self._turn)

    def _turn(self) -> None:
        """Look at the places again, as long as the last clips of a kind leave more of them."""
        self._look()
        has_others = bool(self._coming) or len(self._pools) > 1
        self._is_turning = has_others and any(pool.is_plan_over for pool in self._pools)
        if self._is_turning:
            self._farm.clock.after(TURN_S, self._turn)

    def _look(self) -> None:
        """Begin the kinds that have room, and let the others see theirs."""
        self._begin_kinds()
        for pool in list(self._pools):
            others, do_wait = self._shares(pool), bool(self._coming)
            pool.handle(room_seen(pool.share, others, self._machines, are_places_wanted=do_wait))


def _clips(
    clips: Sequence[tuple[ClipKind, int]],
    times: Mapping[ClipKind, Sequence[ClipTimes]],
    farm: Farm,
) -> Iterator[tuple[ClipSpec, ClipTimes]]:
    """Yield the clips of a kind of worker, each with times that were measured together."""
    number = 0
    for kind, num_clips in clips:
        spec = spec_of(kind)
        for _ in range(num_clips):
            yield replace(spec, clip_id=f"{number:032x}"), farm.random.choice(times[kind])
            number += 1


def spec_of(kind: ClipKind) -> ClipSpec:
    """Return a clip of a kind; no decision of a schedule depends on its other fields."""
    sampling = SamplingParams(kind.num_inference_steps, 1.0, None, 0)
    request = GenerationRequest("simulated", "", kind.shape, 24.0, sampling, NagParams())
    model = ModelIdentity(kind.model, "", "", "", "")
    return ClipSpec("0" * 32, "simulated", model, request, kind.parallel)
