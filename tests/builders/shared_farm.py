"""Several runs on one simulated farm, in virtual time, each with a schedule and a share of its own.

A run sees the others as on a real cluster: by claims and free devices that are a beat old.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources, label_resources
from jobs.schedule import events as ev
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share, room_seen
from jobs.settings.run_config import RunConfig
from jobs.shares.run_claims import RunClaim
from jobs.shares.run_shares import RunShares
from jobs.simulation.conditions import ClipKind, ClipTimes
from jobs.simulation.farm import Farm, node_name
from jobs.simulation.pool import SimulatedPool
from jobs.simulation.simulate import NEVER_S, spec_of
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import VideoShape
from tests.builders.simulated import CONFIG, farm_of

TURN_S, BEAT_S, LOAD_S = 2.0, 1.0, 30.0


@dataclass(frozen=True)
class RunOf:
    """A run of equal clips.

    Args:
        begins_s: moment at which it begins.
        count: `workers.count`.
        on: numbers of the machines that suit it; empty for all.
    """

    name: str
    num_clips: int
    clip_s: float = 60.0
    weight: float = 1.0
    begins_s: float = 0.0
    count: int | None = None
    parallel: ParallelConfig = ONE_DEVICE
    load_s: float = LOAD_S
    on: tuple[int, ...] = ()

    @property
    def labels(self) -> dict[str, str]:
        return {"machine": f"in({','.join(map(str, self.on))})"} if self.on else {}


@dataclass(eq=False)
class SharingRun:
    """A run that has begun, and the board as it sees it."""

    of: RunOf
    farm: Farm
    claims: dict[str, RunClaim]  # at the last beat
    published: RunClaim | None = None
    free_nodes: Mapping[str, Mapping[str, float]] = field(
        default_factory=dict[str, Mapping[str, float]]
    )
    given_back_s: list[float] = field(default_factory=list[float])
    placed_s: list[float] = field(default_factory=list[float])
    first_done_s: float | None = None
    ended_s: float | None = None

    def __post_init__(self) -> None:
        of = self.of
        workers = replace(CONFIG.workers, count=of.count, load_timeout_s=NEVER_S)
        stall = replace(CONFIG.stall, heartbeat_timeout_s=NEVER_S)
        config: RunConfig = replace(CONFIG, workers=workers, stall=stall)
        self.nodes = {
            node_name(number): {**machine, **label_resources({"machine": str(number)})}
            for number, machine in enumerate(self.farm.machines(1))
        }
        self.machines = list(self.nodes.values())
        reserved = RankResources(1, num_gpus=1, labels=of.labels)
        demand = Demand(of.parallel, reserved, of.num_clips, of.count)
        share = Share(demand, WatchedSchedule(self, config, demand.num_wanted(self.machines)))
        self.shares = RunShares(self, of.name, of.weight, of.count)
        kind = ClipKind(of.name, VideoShape(5, 32, 32), 1, of.parallel)
        clips = (
            (replace(spec_of(kind), clip_id=f"{of.name}-{number}"), ClipTimes(of.clip_s))
            for number in range(of.num_clips)
        )
        self.pool = SimulatedPool(
            self.farm,
            config,
            share,
            clips,
            draw_start_s=lambda: of.load_s,
            clip_ended=self._note_clip,
            plan_ended=lambda: None,
        )

    @property
    def num_held(self) -> int:
        return len(self.pool._workers)

    def _note_clip(self) -> None:
        if self.first_done_s is None:
            self.first_done_s = self.farm.clock.now

    # the board

    def publish(self, claim: RunClaim) -> None:
        self.published = claim

    def others(self) -> Sequence[RunClaim]:
        return [claim for run, claim in self.claims.items() if run != self.of.name]

    def free(self) -> Mapping[str, Mapping[str, float]]:
        return self.free_nodes

    def turn(self) -> None:
        """Do as a turn of the dispatch loop."""
        if self.ended_s is not None:
            return
        if self.pool.is_over:
            self.ended_s = self.farm.clock.now
            self.pool.close()
            return
        (limit,) = self.shares.limits([self.pool.share], [], self.nodes, self.farm.clock.now)
        event = room_seen(
            self.pool.share,
            [],
            self.machines,
            are_places_wanted=True,
            most=limit.most,
            wanted_on=limit.on,
        )
        self.pool.handle(event)
        self.pool.handle(ev.Tick())


class WatchedSchedule(Schedule):
    """A schedule that notes when workers get their places and give them back.

    Its workers are placed on the machines that suit its run alone.
    """

    def __init__(self, run: SharingRun, config: RunConfig, num_workers: int) -> None:
        super().__init__(config, num_workers)
        self._run = run
        on = [node_name(number) for number in run.of.on]
        self._closed = frozenset(run.nodes).difference(on) if on else frozenset[str]()

    def start(self, now: float) -> list[ev.Command]:
        return self._pinned(super().start(now))

    def _pinned(self, commands: list[ev.Command]) -> list[ev.Command]:
        return [
            replace(one, cordoned=one.cordoned | self._closed)
            if isinstance(one, ev.StartWorker)
            else one
            for one in commands
        ]

    def handle(self, event: ev.Event, now: float) -> list[ev.Command]:
        loaded = set(self._pool.loaded)
        commands = super().handle(event, now)
        if isinstance(event, ev.WorkerPlaced):
            self._run.placed_s.append(now)
        given = [one for one in commands if isinstance(one, ev.ReleaseWorker) and one.message]
        self._run.given_back_s += [now for one in given if one.worker in loaded]
        return self._pinned(commands)


class SharedFarm:
    """Runs on one farm, by a virtual clock.

    Args:
        num_foreign: devices that another job holds all the time.
    """

    def __init__(self, num_devices: int, *runs: RunOf, num_foreign: int = 0) -> None:
        self.farm = Farm(farm_of(num_devices))
        self.runs: dict[str, SharingRun] = {}
        self.held: list[tuple[float, dict[str, int]]] = []  # at each turn
        self._claims: dict[str, RunClaim] = {}
        for _ in range(num_foreign):
            self.farm.place(ONE_DEVICE, frozenset())
        for run in runs:
            self.farm.clock.at(run.begins_s, self._begin, run)
        self.farm.clock.after(TURN_S, self._turn)
        self.farm.clock.after(BEAT_S, self._beat)

    def until(self, is_over: Callable[[], bool], latest_s: float = 1e6) -> None:
        """Let time pass until something is the case."""
        while not is_over() and self.farm.clock.advance():
            assert self.farm.clock.now < latest_s, "it never happens"

    def until_s(self, moment_s: float) -> None:
        self.until(lambda: self.farm.clock.now >= moment_s)

    def _begin(self, of: RunOf) -> None:
        run = self.runs[of.name] = SharingRun(of, self.farm, self._claims)
        run.pool.start()

    def _turn(self) -> None:
        for run in self.runs.values():
            run.turn()
        self.held.append(
            (self.farm.clock.now, {name: run.num_held for name, run in self.runs.items()})
        )
        self.farm.clock.after(TURN_S, self._turn)

    def _beat(self) -> None:
        self._claims.clear()
        for name, run in self.runs.items():
            if run.published is not None and run.ended_s is None:
                self._claims[name] = run.published
            run.free_nodes = {
                node_name(number): {"GPU": float(len(free))}
                for number, free in enumerate(self.farm._free)
            }
        self.farm.clock.after(BEAT_S, self._beat)
