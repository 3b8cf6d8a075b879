"""A simulated cluster for the schedule's tests: no Ray, no clock, any order of events.

It carries out the schedule's commands and checks each one against its own books.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from jobs.errors import FailureClass
from jobs.schedule import events as ev
from jobs.schedule.events import Attempt, Command, Event, StartClip, WorkerId
from jobs.schedule.retry import Quarantine, Stop, Wait
from jobs.schedule.schedule import Schedule
from jobs.settings.run_config import RetryPolicy, RunConfig, StallPolicy, WorkerConfig
from jobs.types import ClipDone, ClipFailed, ClipProgress, ClipSpec, Stage, WorkerHeartbeat
from tests.builders.specs import spec

SPECS = [spec("sunrise", seed) for seed in range(40)]
STALL = StallPolicy(heartbeat_interval_s=1, heartbeat_timeout_s=20, first_s=100, factor=3, min_s=30)
CONFIG = RunConfig(
    workers=WorkerConfig(spool_clips=2, recycle_after_clips=5, load_timeout_s=300, drain_s=2),
    retry=RetryPolicy(min_clips_to_stop=6, max_quarantined_share=0.7),
    stall=STALL,
)
NODES = ("node-a", "node-b", "node-c")
C = TypeVar("C")
MAX_LIMITS = {
    "worker": "max_lost_workers",
    "stall": "max_stalls",
    "memory": "max_memory_failures",
    "clip": "max_frame_check_failures",
}


@dataclass(frozen=True)
class Freeze:
    """A fault: the worker's process is stopped and sends no more heartbeats."""

    worker: WorkerId


@dataclass(frozen=True)
class Terminate:
    """A fault: the worker receives SIGTERM."""

    worker: WorkerId


@dataclass(frozen=True)
class Hang:
    """A fault: the worker sends heartbeats, but one of its clips makes no progress."""

    worker: WorkerId
    clip_id: str


HiddenFault = Freeze | Terminate | Hang  # the schedule notices these in heartbeats only


@dataclass
class SimulatedWorker:
    """One worker of the simulated cluster."""

    node: str
    is_placed: bool = False
    is_ready: bool = False
    is_frozen: bool = False
    is_draining: bool = False
    has_reported_draining: bool = False
    clips: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    hanging: set[str] = field(default_factory=set[str])
    recalled: set[str] = field(default_factory=set[str])
    closed_until: float = 0.0  # back-off after the store refused one of its clips

    def heartbeat(self) -> WorkerHeartbeat:
        self.has_reported_draining = self.has_reported_draining or self.is_draining
        progress = [
            ClipProgress(clip_id, "denoise", 1, 1_000.0 if clip_id in self.hanging else 0.1)
            for clip_id in self.clips
        ]
        return WorkerHeartbeat(tuple(progress), 1_000, self.is_draining)


class SimulatedCluster:
    """A run of a schedule on simulated workers, with faults, and checks of every command.

    Args:
        choices: numbers that pick each event or fault; when they run out, no more faults happen.
        waits_each: number of questions to the plan, one of which it answers with `PlanWaits`; 0
            for none.
    """

    def __init__(
        self,
        num_clips: int,
        num_workers: int,
        choices: Sequence[int],
        config: RunConfig = CONFIG,
        waits_each: int = 0,
    ) -> None:
        self.config, self.num_workers = config, num_workers
        self.schedule = Schedule(config, num_workers)
        self.plan = iter(SPECS[:num_clips])
        self.planned: list[str] = []
        self.done: list[str] = []
        self.quarantined: list[str] = []
        self.halt: ev.Halt | None = None
        self.stop_at: float | None = None
        self.tries: dict[str, int] = {}
        self.charged: dict[str, list[FailureClass]] = {}
        self.now = 0.0
        self._num_asked, self._waits_each = 0, waits_each
        self.workers: dict[WorkerId, SimulatedWorker] = {}
        self._choices = deque(choices)
        self._event: Event = ev.Tick()
        self._last_stopped = SimulatedWorker("")
        self._known: set[WorkerId] = set()
        self._draining_nodes = frozenset[str]()

    @property
    def is_over(self) -> bool:
        return self.halt is not None or self.schedule.is_finished

    def run(self) -> None:
        self._carry_out(self.schedule.start(self.now))
        for _ in range(1_000):
            if self.is_over:
                return
            events: list[Event | HiddenFault] = list(self._good_events())
            if self._choices:
                events += self._faults()
            choice = self._choices.popleft() if self._choices else 0
            self._let_happen(events[choice % len(events)])
        raise AssertionError("the run does not end")

    def _good_events(self) -> Iterator[Event]:
        for number, worker in self.workers.items():
            if not worker.is_placed:
                yield ev.WorkerPlaced(number)
            if not worker.is_ready:
                yield ev.WorkerReady(number, f"host:{number}", worker.node)
        for number, worker in self.workers.items():
            yield from (
                ev.ClipReturned(number, clip_id)
                for clip_id in worker.recalled
                if not worker.is_frozen and clip_id not in worker.hanging
            )
            for one in worker.clips.values():
                if not worker.is_frozen and one.spec.clip_id not in worker.hanging:
                    yield ev.ClipEnded(
                        number, ClipDone(one.spec.clip_id, one.spec.name, one.number, ())
                    )
        yield ev.Tick()

    def _faults(self) -> Iterator[Event | HiddenFault]:
        classes: tuple[FailureClass, ...] = ("memory", "clip", "code", "request", "store")
        for number, worker in self.workers.items():
            if not worker.is_ready:
                yield ev.WorkerNotLoaded(number, "slow")
                yield ev.WorkerNotLoaded(number, "no answer from the store", is_store=True)
                continue
            yield from (
                ev.WorkerLost(number, "killed"),
                ev.WorkerLost(number, "preempted", is_preempted=True),
            )
            yield from (Freeze(number), Terminate(number))
            for one in worker.clips.values():
                yield Hang(number, one.spec.clip_id)
                for failure_class in classes:
                    yield ev.ClipEnded(number, failure(one.spec, one.number, number, failure_class))
                yield ev.ClipEnded(
                    number, failure(one.spec, one.number, number, "store", may_pass=False)
                )
        yield ev.NodesDraining(frozenset([NODES[1]]))
        yield ev.RoomSeen(1)
        yield ev.RoomSeen(1, "a worker needs 1 GPU")
        yield ev.RoomSeen(1, most=1)
        yield ev.RoomSeen(1, most=2)
        yield ev.StopRequested("by SIGTERM")

    def _let_happen(self, event: Event | HiddenFault) -> None:
        match event:
            case Freeze(number):
                self.workers[number].is_frozen = True
            case Terminate(number):
                self.workers[number].is_draining = True
            case Hang(number, clip_id):
                self.workers[number].hanging.add(clip_id)
            case ev.Tick():
                self._pass_time(25.0)
            case _:
                self.now += 0.1
                self._learn(event)
                self._carry_out(self._handle(event))

    def _learn(self, event: Event) -> None:
        match event:
            case ev.WorkerPlaced(number):
                self.workers[number].is_placed = True
            case ev.WorkerReady(number):
                self.workers[number].is_placed = self.workers[number].is_ready = True
            case ev.ClipReturned(number, clip_id):
                self.workers[number].recalled.remove(clip_id)
                del self.workers[number].clips[clip_id]
                self.tries[clip_id] -= 1
            case ev.ClipEnded(number, outcome):
                self.workers[number].recalled.discard(outcome.clip_id)
                del self.workers[number].clips[outcome.clip_id]
                self._note(self.workers[number], outcome)
            case ev.NodesDraining(nodes):
                self._draining_nodes = nodes
            case ev.StopRequested() if self.stop_at is None:
                self.stop_at = self.now + self.config.workers.drain_s
            case _:
                pass

    def _note(self, worker: SimulatedWorker, outcome: ClipDone | ClipFailed) -> None:
        if isinstance(outcome, ClipDone):
            self.done.append(outcome.clip_id)
            worker.closed_until = 0.0
        elif outcome.failure_class == "store" and worker.closed_until <= self.now:
            worker.closed_until = self.now + self.config.retry.back_off_s

    def _pass_time(self, seconds: float) -> None:
        """Let time pass; each worker that is not frozen sends a heartbeat every ten seconds."""
        until = self.now + seconds
        while self.now < until and not self.is_over:
            self.now = min(until, self.now + 10.0)
            for number in list(self.workers):
                worker = self.workers.get(number)
                if (
                    worker is not None
                    and worker.is_ready
                    and not worker.is_frozen
                    and not self.is_over
                ):
                    self._carry_out(self._handle(ev.HeartbeatReceived(number, worker.heartbeat())))
            if not self.is_over:
                self._carry_out(self._handle(ev.Tick()))

    def _take_clip(self) -> ev.Planned | ev.PlanWaits:
        self._num_asked += 1
        if self._waits_each and self._num_asked % self._waits_each == 0:
            return ev.PlanWaits()
        taken = next(self.plan, None)
        self.planned += [taken.clip_id] if taken else []
        return ev.Planned(taken)

    def _handle(self, event: Event) -> list[Command]:
        self._event = event
        return self.schedule.handle(event, self.now)

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.halt is None, f"{command} after the end"
            match command:
                case ev.StartWorker(number, cordoned):
                    assert number not in self._known, "a worker's number was used twice"
                    self._known.add(number)
                    nodes = [node for node in NODES if node not in cordoned | self._draining_nodes]
                    assert nodes, "all nodes are cordoned"
                    self.workers[number] = SimulatedWorker(nodes[number % len(nodes)])
                    assert len(self.workers) <= self.num_workers
                case ev.StopWorker(number, _, is_lost):
                    self._last_stopped = self.workers.pop(number)
                    assert is_lost or not self._last_stopped.clips, (
                        "a worker was replaced while it had clips in flight"
                    )
                case ev.TakeClip():
                    self._carry_out(self.schedule.handle(self._take_clip(), self.now))
                case StartClip(number, attempt):
                    self._start(self.workers[number], attempt)
                case ev.RecallClip(number, clip_id):
                    worker = self.workers[number]
                    assert clip_id in worker.clips, "recalled from a worker that does not have it"
                    assert clip_id not in worker.recalled, "recalled twice"
                    assert len(worker.clips) > 1, "the only clip of a worker is recalled"
                    worker.recalled.add(clip_id)
                case ev.ReportFailure(failed, decision):
                    self._report(failed, decision)
                case ev.Halt():
                    self.halt = command
                case ev.ReleaseWorker(number, message):
                    assert message, "one kind alone releases no worker but for another run"
                    released = self.workers.pop(number)
                    assert not released.clips, "a worker was given back with clips in flight"

    def _start(self, worker: SimulatedWorker, attempt: Attempt) -> None:
        clip_id = attempt.spec.clip_id
        assert worker.is_ready, "a clip for a worker that has not loaded its model"
        assert self.stop_at is None, "a clip started after the run received a request to stop"
        assert not any(clip_id in other.clips for other in self.workers.values()), (
            "two workers render the same clip"
        )
        assert clip_id not in [*self.done, *self.quarantined], "rendered again after its end"
        self.tries[clip_id] = self.tries.get(clip_id, 0) + 1
        assert attempt.number == self.tries[clip_id], "an attempt was not counted, or twice"
        assert [failed.failure_class for failed in attempt.failures] == self.charged.get(
            clip_id, []
        )
        is_alone = attempt.is_suspect or any(other.is_suspect for other in worker.clips.values())
        assert not (is_alone and worker.clips), "a suspect shares its worker"
        assert worker.node not in self._draining_nodes, "started on a node that is being drained"
        assert not worker.has_reported_draining, "started on a worker that received SIGTERM"
        assert worker.closed_until <= self.now, "started on a worker that backs off from the store"
        if attempt.node is not None and attempt.node != worker.node:
            others = [
                other
                for other in self.workers.values()
                if other.node == attempt.node and other.is_ready
            ]
            assert not others, "the encoded clip lies on another node"
        assert attempt.uses_exact_attention == ("clip" in self.charged.get(clip_id, []))
        worker.clips[clip_id] = attempt
        assert len(worker.clips) <= self.config.workers.spool_clips + 1

    def _report(self, failed: ClipFailed, decision: object) -> None:
        if failed.failure_class == "store":
            assert isinstance(decision, Wait | Stop), "charged although the store refused the clip"
            return
        if failed.failure_class == "stall":
            assert self._last_stopped.is_frozen or failed.clip_id in self._last_stopped.hanging, (
                "charged with the stall of another clip"
            )
        if failed.failure_class == "worker":
            assert isinstance(self._event, ev.WorkerLost), "charged although no worker was lost"
            assert not self._event.is_preempted, "charged with a preemption"
        self.charged.setdefault(failed.clip_id, []).append(failed.failure_class)
        charged = self.charged[failed.clip_id]
        if failed.failure_class in MAX_LIMITS:
            limit = getattr(self.config.retry, MAX_LIMITS[failed.failure_class])
            assert charged.count(failed.failure_class) <= limit, "tried again beyond its budget"
        assert (
            len(charged)
            <= self.config.retry.max_failed_workers + self.config.retry.max_frame_check_failures
        )
        if isinstance(decision, Quarantine):
            self.quarantined.append(failed.clip_id)


def failure(
    one: ClipSpec,
    attempt: int,
    worker: WorkerId,
    failure_class: FailureClass,
    *,
    may_pass: bool | None = None,
) -> ClipFailed:
    passes = (
        failure_class in ("memory", "clip", "store", "worker", "stall")
        if may_pass is None
        else may_pass
    )
    return ClipFailed(
        clip_id=one.clip_id,
        name=one.name,
        attempt=attempt,
        failure_class=failure_class,
        may_pass_on_retry=passes,
        error_type="SomeError",
        message="message",
        traceback="",
        worker=f"host:{worker}",
        is_spooled=failure_class == "store",
    )


def progress(one: ClipSpec, stage: Stage, age_s: float, step: int | None = None) -> ClipProgress:
    return ClipProgress(one.clip_id, stage, step, age_s)


def started(commands: list[Command]) -> list[StartClip]:
    return [command for command in commands if isinstance(command, StartClip)]


def of_type(commands: list[Command], command_type: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, command_type)]


class PlannedSchedule:
    """A schedule with its plan: it answers `TakeClip` at once, and its clock moves on request."""

    def __init__(
        self,
        config: RunConfig = CONFIG,
        num_workers: int = 1,
        num_clips: int = len(SPECS),
        specs: Sequence[ClipSpec] = SPECS,
    ) -> None:
        self.schedule, self.now = Schedule(config, num_workers), 0.0
        self._plan = iter(specs[:num_clips])
        self.schedule.start(self.now)

    def after(self, event: Event, later_s: float = 0.0) -> list[Command]:
        self.now += later_s
        seen: list[Command] = []
        waiting = deque(self.schedule.handle(event, self.now))
        while waiting:
            seen.append(waiting.popleft())
            if isinstance(seen[-1], ev.TakeClip):
                waiting.extend(self.schedule.handle(ev.Planned(next(self._plan, None)), self.now))
        return seen

    def ready(
        self, number: WorkerId, node: str = NODES[0], spooled: frozenset[str] = frozenset()
    ) -> list[StartClip]:
        return started(self.after(ev.WorkerReady(number, f"host:{number}", node, spooled)))

    def done(self, number: WorkerId, one: ClipSpec, memory_bytes: int = 1_000) -> list[Command]:
        done = ClipDone(one.clip_id, one.name, 1, (), memory_bytes=memory_bytes)
        return self.after(ev.ClipEnded(number, done))

    def returns(self, number: WorkerId, one: ClipSpec) -> list[Command]:
        return self.after(ev.ClipReturned(number, one.clip_id))

    def fails(
        self,
        number: WorkerId,
        attempt: Attempt,
        failure_class: FailureClass,
        later_s: float = 0.0,
    ) -> list[Command]:
        failed = failure(attempt.spec, attempt.number, number, failure_class)
        return self.after(ev.ClipEnded(number, failed), later_s)

    def in_flight(self, number: WorkerId) -> dict[str, Attempt]:
        """Return the attempts of a loaded worker by clip_id, as the schedule knows them."""
        return self.schedule._pool.loaded[number].attempts


def with_retry(**changes: object) -> RunConfig:
    return replace(CONFIG, retry=replace(CONFIG.retry, **changes))
