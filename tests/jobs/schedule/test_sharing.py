"""Several kinds of worker on one cluster, by the clock: no place idles while clips wait for it.

The simulated cluster gives places to workers in the order in which they were asked for, as Ray
does, and loads each model anew. It steps the schedules as the dispatch loop does.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import StoreUnavailableError
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.schedule import events as ev
from jobs.schedule.events import Command, Event, WorkerId
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share, first_with_room, left_by, num_wanted, room_seen
from jobs.settings.run_config import RunConfig, WorkerConfig
from jobs.types import ClipDone, ClipProgress, ClipSpec, WorkerHeartbeat
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from tests.builders.specs import spec
from tests.fakes.simulated_cluster import CONFIG, PlannedSchedule, of_type

ANSWER_S = 0.1
HEARTBEAT_S = 5.0
CPU = RankResources(1)


@dataclass(frozen=True)
class Kind:
    """The clips of one kind of worker, all equally long."""

    num_clips: int
    clip_s: float
    load_s: float = 20.0
    degree: int = 1

    @property
    def demand(self) -> Demand:
        parallel = ParallelConfig(self.degree) if self.degree > 1 else ONE_DEVICE
        return Demand(parallel, CPU, self.num_clips)

    @property
    def work_s(self) -> float:
        """The device seconds of its clips."""
        return self.num_clips * self.clip_s * self.degree


@dataclass(eq=False)
class Worker:
    """A worker on a machine, or in the queue for one."""

    number: WorkerId
    pool: "TimedPool"
    machine: int | None = None
    is_ready: bool = False
    is_over: bool = False
    computing: ClipSpec | None = None
    queue: deque[ClipSpec] = field(default_factory=deque[ClipSpec])

    def heartbeat(self) -> WorkerHeartbeat:
        computing = [self.computing] if self.computing else []
        clips = [ClipProgress(one.clip_id, "denoise", 1, 1.0) for one in computing]
        clips += [ClipProgress(one.clip_id, "queue", None, 1.0) for one in self.queue]
        return WorkerHeartbeat(tuple(clips), 1_000)


@dataclass(eq=False)
class TimedPool:
    kind: Kind
    share: Share
    specs: deque[ClipSpec]
    began_s: float
    workers: dict[WorkerId, Worker] = field(default_factory=dict[WorkerId, Worker])


class TimedFarm:
    """A run of several kinds by the clock.

    Args:
        machines: devices of each machine.
    """

    def __init__(self, kinds: list[Kind], machines: list[int]) -> None:
        self._free = list(machines)
        self._machines = [{"CPU": float(num)} for num in machines]
        self._coming = list(kinds)
        self._pools: list[TimedPool] = []
        self._asked: list[Worker] = []  # wait for a place
        self._order, self._now = count(), 0.0
        self._events: list[tuple[float, int, Worker | None, str, ClipSpec | None]] = []
        workers = WorkerConfig(recycle_after_clips=None, load_timeout_s=10_000)
        self._config: RunConfig = replace(CONFIG, workers=workers)
        self._idle_since: dict[Worker, float] = {}
        self.longest_idle_s = 0.0  # one worker's place, while clips of another kind waited
        self.num_done = 0
        self.began: list[tuple[Kind, float]] = []

    def duration_s(self) -> float:
        self._turn()
        self._later(HEARTBEAT_S, None, "heartbeats")
        while self._pools:
            self._now, _, worker, name, one = heapq.heappop(self._events)
            self._let_happen(worker, name, one)
            self._turn()
            self._note_idle()
        assert not self._coming
        return self._now

    def _later(
        self, in_s: float, worker: Worker | None, name: str, one: ClipSpec | None = None
    ) -> None:
        heapq.heappush(self._events, (self._now + in_s, next(self._order), worker, name, one))

    def _let_happen(self, worker: Worker | None, name: str, one: ClipSpec | None) -> None:
        if worker is None:
            for pool in self._pools:
                for number, other in list(pool.workers.items()):
                    if other.is_ready:
                        self._handle(pool, ev.HeartbeatReceived(number, other.heartbeat()))
            self._later(HEARTBEAT_S, None, "heartbeats")
        elif worker.is_over:
            return
        elif name == "ready":
            worker.is_ready = True
            label = f"host:{worker.number}"
            self._handle(worker.pool, ev.WorkerReady(worker.number, label, f"{worker.machine}"))
        elif one is not None and name == "done":
            worker.computing = None
            self._compute_next(worker)
            self.num_done += 1
            done = ClipDone(one.clip_id, one.name, 1, ())
            self._handle(worker.pool, ev.ClipEnded(worker.number, done))
        elif one is not None and one in worker.queue:
            worker.queue.remove(one)
            self._handle(worker.pool, ev.ClipReturned(worker.number, one.clip_id))

    def _turn(self) -> None:
        """Do as a turn of the dispatch loop: tell each pool its room, end pools, begin others."""
        for pool in list(self._pools):
            others = [other.share for other in self._pools if other is not pool]
            has_coming = bool(self._coming)
            self._handle(
                pool, room_seen(pool.share, others, self._machines, are_places_wanted=has_coming)
            )
            self._handle(pool, ev.Tick())
        for pool in [pool for pool in self._pools if pool.share.schedule.is_finished]:
            self._pools.remove(pool)
            for worker in list(pool.workers.values()):
                self._end(worker)
        while self._coming:
            shares, demands = [pool.share for pool in self._pools], [k.demand for k in self._coming]
            found = first_with_room(demands, shares, self._machines)
            if found is None:
                break
            kind = self._coming.pop(found[0])
            self.began.append((kind, self._now))
            share = Share(kind.demand, Schedule(self._config, found[1]))
            clips = deque(spec(f"{id(kind)}", seed) for seed in range(kind.num_clips))
            pool = TimedPool(kind, share, clips, self._now)
            self._pools.append(pool)
            self._carry_out(pool, share.schedule.start(self._now))
        self._place()

    def _place(self) -> None:
        for worker in list(self._asked):
            degree = worker.pool.kind.degree
            fitting = [number for number, free in enumerate(self._free) if free >= degree]
            if fitting:
                self._asked.remove(worker)
                worker.machine = fitting[0]
                self._free[worker.machine] -= degree
                self._handle(worker.pool, ev.WorkerPlaced(worker.number))
                self._later(worker.pool.kind.load_s, worker, "ready")

    def _end(self, worker: Worker) -> None:
        worker.is_over = True
        del worker.pool.workers[worker.number]
        if worker.machine is None:
            self._asked.remove(worker)
        else:
            self._free[worker.machine] += worker.pool.kind.degree

    def _handle(self, pool: TimedPool, event: Event) -> None:
        self._carry_out(pool, pool.share.schedule.handle(event, self._now))

    def _carry_out(self, pool: TimedPool, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case ev.StartWorker(number):
                    worker = pool.workers[number] = Worker(number, pool)
                    self._asked.append(worker)
                case ev.ReleaseWorker(number):
                    released = pool.workers[number]
                    assert released.computing is None, "released with a clip"
                    assert not released.queue, "released with a clip"
                    self._end(released)
                case ev.TakeClip():
                    self._handle(pool, ev.Planned(pool.specs.popleft() if pool.specs else None))
                case ev.StartClip(number, attempt):
                    pool.workers[number].queue.append(attempt.spec)
                    self._compute_next(pool.workers[number])
                case ev.RecallClip(number, clip_id):
                    worker = pool.workers[number]
                    (one,) = [one for one in worker.queue if one.clip_id == clip_id]
                    self._later(ANSWER_S, worker, "returned", one)
                case _:
                    raise AssertionError(command)

    def _compute_next(self, worker: Worker) -> None:
        if worker.computing is None and worker.queue:
            worker.computing = worker.queue.popleft()
            self._later(worker.pool.kind.clip_s, worker, "done", worker.computing)

    def _note_idle(self) -> None:
        """Check the places: a free one that a coming kind could use, and workers without a clip."""
        for kind in self._coming:
            assert all(free < kind.degree for free in self._free), "a free place, and a kind waits"
        idle = {
            worker
            for pool in self._pools
            for worker in pool.workers.values()
            if worker.is_ready and worker.computing is None and self._coming
        }
        self._idle_since = {worker: self._idle_since.get(worker, self._now) for worker in idle}
        for since in self._idle_since.values():
            self.longest_idle_s = max(self.longest_idle_s, self._now - since)


kinds_of_one_device = st.lists(
    st.builds(Kind, st.integers(1, 30), st.floats(5, 120), st.floats(1, 60)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=30, deadline=None)
@given(kinds=kinds_of_one_device, num_devices=st.integers(1, 8))
def test_several_kinds_take_as_long_as_their_work_on_all_devices_and_none_idles(
    kinds: list[Kind], num_devices: int
) -> None:
    """A device loads each model at most once, and waits for no other device until the last clips.

    So the run ends within one clip and one load of the shortest time of a run that loads each model
    on each device.
    """
    farm = TimedFarm(kinds, [num_devices])
    duration_s = farm.duration_s()
    assert farm.num_done == sum(kind.num_clips for kind in kinds)
    shortest_s = sum(kind.work_s for kind in kinds) / num_devices
    loads_s = sum(kind.load_s for kind in kinds)
    slack_s = max(kind.clip_s for kind in kinds) + max(kind.load_s for kind in kinds)
    waits_s = len(kinds) * (HEARTBEAT_S + 2 * ANSWER_S)
    assert duration_s <= shortest_s + loads_s + slack_s + waits_s
    assert farm.longest_idle_s <= HEARTBEAT_S + 2 * ANSWER_S
    assert [kind for kind, _ in farm.began] == kinds


def test_the_places_of_a_kind_with_few_clips_are_shared_from_the_start() -> None:
    few, many = Kind(3, 600.0), Kind(50, 10.0)
    farm = TimedFarm([few, many], [8])
    assert farm.duration_s() < 621.0
    assert farm.began == [(few, 0.0), (many, 0.0)]


@settings(max_examples=20, deadline=None)
@given(
    num_groups=st.integers(1, 6),
    num_pairs=st.integers(0, 6),
    num_single=st.integers(1, 30),
    machines=st.lists(st.integers(4, 9), min_size=1, max_size=3),
)
def test_groups_and_single_workers_share_machines_and_all_clips_end(
    num_groups: int, num_pairs: int, num_single: int, machines: list[int]
) -> None:
    kinds = [Kind(num_groups, 60.0, degree=4), Kind(num_pairs, 60.0, degree=2)]
    kinds = [*(kind for kind in kinds if kind.num_clips), Kind(num_single, 60.0)]
    farm = TimedFarm(kinds, machines)
    farm.duration_s()
    assert farm.num_done == num_groups + num_pairs + num_single


# one schedule whose places are wanted


WANTED = ev.RoomSeen(3, others_wait=True)


def released(commands: list[Command]) -> list[WorkerId]:
    return [command.worker for command in of_type(commands, ev.ReleaseWorker)]


def test_a_worker_is_released_once_no_clip_is_left_for_it() -> None:
    farm = PlannedSchedule(num_workers=3, num_clips=2)
    first, second = (start.attempt.spec for start in farm.ready(0))
    assert released(farm.after(WANTED)) == [2], "one that loads may take the queued clip over"
    farm.ready(1)
    farm.returns(0, second)
    assert released(farm.after(WANTED)) == []
    assert released(farm.done(1, second)) == [1]
    farm.done(0, first)
    assert farm.schedule.is_finished


def test_no_worker_is_released_while_the_plan_has_clips_or_no_other_kind_waits() -> None:
    farm = PlannedSchedule(num_workers=3, num_clips=40)
    farm.ready(0)
    assert released(farm.after(WANTED)) == []
    alone = PlannedSchedule(num_workers=3, num_clips=1)
    alone.ready(0)
    alone.ready(1)
    assert released(alone.after(ev.RoomSeen(3))) == []


def test_a_clip_whose_worker_died_after_the_others_were_released_gets_a_new_one() -> None:
    farm = PlannedSchedule(num_workers=3, num_clips=1)
    (start,) = farm.ready(0)
    assert released(farm.after(WANTED)) == [2, 1]
    commands = farm.after(ev.WorkerLost(0, "killed"))
    assert [one.worker for one in of_type(commands, ev.StartWorker)] == [3]
    (again,) = farm.ready(3)
    assert (again.attempt.spec, again.attempt.number) == (start.attempt.spec, 2)
    assert released(farm.after(WANTED)) == []


def test_a_growing_cluster_gives_no_workers_to_a_kind_without_further_clips() -> None:
    farm = PlannedSchedule(num_workers=1, num_clips=1)
    farm.ready(0)
    farm.after(WANTED)
    assert not of_type(farm.after(ev.RoomSeen(9, others_wait=True)), ev.StartWorker)
    assert not of_type(farm.after(ev.RoomSeen(20)), ev.StartWorker), "nor when the others are done"


def test_the_worker_on_the_node_of_an_encoded_clip_is_released_last() -> None:
    """The store refuses a clip, which lies encoded on its node."""
    farm = PlannedSchedule(num_workers=3, num_clips=3)
    (kept, *_) = (start.attempt for start in farm.ready(0, "node-a"))
    for number, node in ((1, "node-b"), (2, "node-c")):
        farm.ready(number, node)
        for clip_id in [*farm.schedule._pool.loaded[0].recalled]:
            farm.after(ev.ClipReturned(0, clip_id))
    for number in (1, 2):
        (one,) = farm.in_flight(number).values()
        farm.done(number, one.spec)
    farm.fails(0, kept, "store")
    assert released(farm.after(WANTED)) == [2, 1]


def test_a_long_outage_stops_no_run_in_which_another_kind_computes() -> None:
    """A clip that another kind computes will be spooled, so the run goes on until it ends."""
    is_computing = True
    config = replace(CONFIG, retry=replace(CONFIG.retry, max_outage_s=10))
    farm = PlannedSchedule(config, num_clips=1)
    farm.schedule = Schedule(config, 1, lambda: is_computing)
    farm.schedule.start(0.0)
    (start,) = farm.ready(0)

    def refused() -> list[ev.Halt]:
        nonlocal start
        commands = farm.fails(0, start.attempt, "store")
        for _ in range(4):
            starts = of_type(farm.after(ev.Tick(), 5.0), ev.StartClip)
            start = (starts or [start])[0]
        return of_type(commands, ev.Halt)

    assert [refused(), refused()] == [[], []]
    is_computing = False
    (halt,) = refused()
    assert isinstance(halt.error, StoreUnavailableError)


# the shares


def share(demand: Demand, num_workers: int) -> Share:
    return Share(demand, Schedule(CONFIG, num_workers))


@pytest.mark.parametrize(
    ("held", "num_held", "parallel", "expected"),
    [
        (ONE_DEVICE, 3, ONE_DEVICE, 7),
        (ONE_DEVICE, 3, ParallelConfig(2), 3),  # from 1 + 6 devices
        (ParallelConfig(4), 1, ONE_DEVICE, 6),
        (ParallelConfig(4), 1, ParallelConfig(4), 1),
        (ParallelConfig(4, across_hosts=True), 2, ParallelConfig(2), 1),
        (ONE_DEVICE, 99, ONE_DEVICE, 0),
    ],
)
def test_a_kind_gets_the_places_that_the_others_leave(
    held: ParallelConfig, num_held: int, parallel: ParallelConfig, expected: int
) -> None:
    machines = [{"CPU": 4.0}, {"CPU": 6.0}]
    others = [share(Demand(held, CPU, 100), num_held)]
    assert num_wanted(Demand(parallel, CPU, 100), others, machines) == expected
    assert sum(machine["CPU"] for machine in left_by(others, machines)) >= 0


def test_the_number_of_workers_in_the_settings_bounds_all_kinds_together() -> None:
    machines = [{"CPU": 8.0}]
    others = [share(Demand(ONE_DEVICE, CPU, 100, count=3), 2)]
    assert num_wanted(Demand(ONE_DEVICE, CPU, 100, count=3), others, machines) == 1
    assert num_wanted(Demand(ONE_DEVICE, CPU, 100, count=2), others, machines) == 0
    assert num_wanted(Demand(ONE_DEVICE, CPU, 100, count=3), [], []) == 3


def test_a_kind_that_fits_nowhere_lets_a_later_one_use_what_is_free() -> None:
    machines = [{"CPU": 6.0}]
    fours, pairs = Demand(ParallelConfig(4), CPU, 9), Demand(ParallelConfig(2), CPU, 9)
    assert first_with_room([fours, pairs], [], machines) == (0, 1)
    assert first_with_room([fours, pairs], [share(fours, 1)], machines) == (1, 1)
    assert first_with_room([fours], [share(fours, 1)], machines) is None
    assert first_with_room([fours], [], []) == (0, 1), "a cluster may grow for the first kind"
