"""A cluster on which anything may happen, for the schedule's tests: no Ray, no clock, and every command checked."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from jobs.config import RetryPolicy, RunConfig, StallPolicy, WorkerConfig
from jobs.errors import FailureClass
from jobs.schedule.events import (
    Attempt,
    ClipEnded,
    Command,
    Event,
    Halt,
    HeartbeatReceived,
    NodesDraining,
    Planned,
    ReportFailure,
    StartClip,
    StartWorker,
    StopRequested,
    StopWorker,
    TakeClip,
    Tick,
    WorkerId,
    WorkerLost,
    WorkerNotLoaded,
    WorkerReady,
)
from jobs.schedule.retry import Quarantine, Stop, Wait
from jobs.schedule.schedule import Schedule
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
    """The worker's process is stopped: it says nothing any more."""

    worker: WorkerId


@dataclass(frozen=True)
class Terminate:
    """The worker is asked to end by SIGTERM."""

    worker: WorkerId


@dataclass(frozen=True)
class Hang:
    """The worker answers, but one of its clips does not move."""

    worker: WorkerId
    clip_id: str


Fate = Freeze | Terminate | Hang  # what the schedule learns of only through heartbeats


@dataclass
class Simulated:
    """One worker of the night."""

    node: str
    is_ready: bool = False
    is_frozen: bool = False
    is_draining: bool = False
    has_told: bool = False  # that it is draining
    clips: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    hanging: set[str] = field(default_factory=set[str])
    closed_until: float = 0.0  # the store has refused one of its clips

    def heartbeat(self) -> WorkerHeartbeat:
        self.has_told = self.has_told or self.is_draining
        progress = [
            ClipProgress(clip_id, "denoise", 1, 1_000.0 if clip_id in self.hanging else 0.1)
            for clip_id in self.clips
        ]
        return WorkerHeartbeat(tuple(progress), 1_000, self.is_draining)


class Night:
    """Does as the schedule says, and checks every command against what it knows.

    Args:
        chances: one number for each thing that happens, decides which; when they run out, all goes well.
    """

    def __init__(
        self, num_clips: int, num_workers: int, chances: list[int], config: RunConfig = CONFIG
    ) -> None:
        self.config, self.num_workers = config, num_workers
        self.schedule = Schedule(config, num_workers)
        self.plan = iter(SPECS[:num_clips])
        self.planned: list[str] = []
        self.done: list[str] = []
        self.quarantined: list[str] = []
        self.halt: Halt | None = None
        self.stop_at: float | None = None
        self.tries: dict[str, int] = {}
        self.charged: dict[str, list[FailureClass]] = {}
        self.now = 0.0
        self.workers: dict[WorkerId, Simulated] = {}
        self._chances = deque(chances)
        self._event: Event = Tick()
        self._stopped = Simulated("")  # the last one
        self._known: set[WorkerId] = set()
        self._nodes_gone = frozenset[str]()

    @property
    def is_over(self) -> bool:
        return self.halt is not None or self.schedule.is_finished

    def run(self) -> None:
        self._carry_out(self.schedule.start(self.now))
        for _ in range(1_000):
            if self.is_over:
                return
            events: list[Event | Fate] = list(self._good())
            if self._chances:
                events += self._bad()
            chance = self._chances.popleft() if self._chances else 0
            self._happens(events[chance % len(events)])
        raise AssertionError("the run does not end")

    def _good(self) -> Iterator[Event]:
        for number, worker in self.workers.items():
            if not worker.is_ready:
                yield WorkerReady(number, f"host:{number}", worker.node)
        for number, worker in self.workers.items():
            for one in worker.clips.values():
                if not worker.is_frozen and one.spec.clip_id not in worker.hanging:
                    yield ClipEnded(
                        number, ClipDone(one.spec.clip_id, one.spec.name, "", one.number, ())
                    )
        yield Tick()

    def _bad(self) -> Iterator[Event | Fate]:
        kinds: tuple[FailureClass, ...] = ("memory", "clip", "code", "request", "store")
        for number, worker in self.workers.items():
            if not worker.is_ready:
                yield WorkerNotLoaded(number, "slow")
                yield WorkerNotLoaded(number, "no answer from the store", is_store=True)
                continue
            yield from (
                WorkerLost(number, "killed"),
                WorkerLost(number, "preempted", is_preempted=True),
            )
            yield from (Freeze(number), Terminate(number))
            for one in worker.clips.values():
                yield Hang(number, one.spec.clip_id)
                for kind in kinds:
                    yield ClipEnded(number, failure(one.spec, one.number, number, kind))
                yield ClipEnded(
                    number, failure(one.spec, one.number, number, "store", may_pass=False)
                )
        yield NodesDraining(frozenset([NODES[1]]))
        yield StopRequested("by SIGTERM")

    def _happens(self, event: Event | Fate) -> None:
        match event:
            case Freeze(number):
                self.workers[number].is_frozen = True
            case Terminate(number):
                self.workers[number].is_draining = True
            case Hang(number, clip_id):
                self.workers[number].hanging.add(clip_id)
            case Tick():
                self._live(25.0)
            case _:
                self.now += 0.1
                self._learn(event)
                self._carry_out(self._handle(event))

    def _learn(self, event: Event) -> None:
        match event:
            case WorkerReady(number):
                self.workers[number].is_ready = True
            case ClipEnded(number, outcome):
                del self.workers[number].clips[outcome.clip_id]
                self._note(self.workers[number], outcome)
            case NodesDraining(nodes):
                self._nodes_gone = nodes
            case StopRequested() if self.stop_at is None:
                self.stop_at = self.now + self.config.workers.drain_s
            case _:
                pass

    def _note(self, worker: Simulated, outcome: ClipDone | ClipFailed) -> None:
        if isinstance(outcome, ClipDone):
            self.done.append(outcome.clip_id)
            worker.closed_until = 0.0
        elif outcome.failure_class == "store" and worker.closed_until <= self.now:
            worker.closed_until = self.now + self.config.retry.back_off_s

    def _live(self, seconds: float) -> None:
        """Time passes; every worker that is not frozen says so, at least every ten seconds."""
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
                    self._carry_out(self._handle(HeartbeatReceived(number, worker.heartbeat())))
            if not self.is_over:
                self._carry_out(self._handle(Tick()))

    def _handle(self, event: Event) -> list[Command]:
        self._event = event
        return self.schedule.handle(event, self.now)

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.halt is None, f"{command} after the end"
            match command:
                case StartWorker(number, avoid):
                    assert number not in self._known, "a worker's number was used twice"
                    self._known.add(number)
                    places = [node for node in NODES if node not in avoid | self._nodes_gone]
                    assert places, "kept off all nodes"
                    self.workers[number] = Simulated(places[number % len(places)])
                    assert len(self.workers) <= self.num_workers
                case StopWorker(number, _, is_lost):
                    self._stopped = self.workers.pop(number)
                    assert is_lost or not self._stopped.clips, (
                        "a worker was replaced with clips in its hands"
                    )
                case TakeClip():
                    taken = next(self.plan, None)
                    self.planned += [taken.clip_id] if taken else []
                    self._carry_out(self.schedule.handle(Planned(taken), self.now))
                case StartClip(number, attempt):
                    self._start(self.workers[number], attempt)
                case ReportFailure(failed, decision):
                    self._report(failed, decision)
                case Halt():
                    self.halt = command

    def _start(self, worker: Simulated, attempt: Attempt) -> None:
        clip_id = attempt.spec.clip_id
        assert worker.is_ready, "a clip for a worker that has loaded nothing"
        assert self.stop_at is None, "started after the run was told to stop"
        assert not any(clip_id in other.clips for other in self.workers.values()), (
            "rendered by two at once"
        )
        assert clip_id not in [*self.done, *self.quarantined], "rendered again after its end"
        self.tries[clip_id] = self.tries.get(clip_id, 0) + 1
        assert attempt.number == self.tries[clip_id], "a try was not counted, or twice"
        assert [failed.failure_class for failed in attempt.failures] == self.charged.get(
            clip_id, []
        )
        is_alone = attempt.is_suspect or any(other.is_suspect for other in worker.clips.values())
        assert not (is_alone and worker.clips), "a clip that may kill shares its worker"
        assert worker.node not in self._nodes_gone, "started on a machine that is taken away"
        assert not worker.has_told, "started on a worker that was told to end"
        assert worker.closed_until <= self.now, "the worker was to wait for the store"
        if attempt.node is not None and attempt.node != worker.node:
            others = [
                other
                for other in self.workers.values()
                if other.node == attempt.node and other.is_ready
            ]
            assert not others, "it lies encoded on another machine"
        assert attempt.uses_exact_attention == ("clip" in self.charged.get(clip_id, []))
        worker.clips[clip_id] = attempt
        assert len(worker.clips) <= self.config.workers.spool_clips + 1

    def _report(self, failed: ClipFailed, decision: object) -> None:
        if failed.failure_class == "store":
            assert isinstance(decision, Wait | Stop), "given up or charged for the store's sake"
            return
        if failed.failure_class == "stall":
            assert self._stopped.is_frozen or failed.clip_id in self._stopped.hanging, (
                "charged with another's stall"
            )
        if failed.failure_class == "worker":
            assert isinstance(self._event, WorkerLost), "charged with a loss that was none"
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
    kind: FailureClass,
    *,
    may_pass: bool | None = None,
) -> ClipFailed:
    passes = (
        kind in ("memory", "clip", "store", "worker", "stall") if may_pass is None else may_pass
    )
    return ClipFailed(
        clip_id=one.clip_id,
        name=one.name,
        attempt=attempt,
        failure_class=kind,
        may_pass_on_retry=passes,
        error_type="SomeError",
        message="message",
        traceback="",
        worker=f"host:{worker}",
        is_spooled=kind == "store",
    )


def progress(one: ClipSpec, stage: Stage, age_s: float, step: int | None = None) -> ClipProgress:
    return ClipProgress(one.clip_id, stage, step, age_s)


def started(commands: list[Command]) -> list[StartClip]:
    return [command for command in commands if isinstance(command, StartClip)]


def of_type(commands: list[Command], kind: type[C]) -> list[C]:
    return [command for command in commands if isinstance(command, kind)]


class Taking:
    """A schedule whose `TakeClip` is answered at once, and whose clock stands still unless told."""

    def __init__(self, config: RunConfig = CONFIG, num_workers: int = 1) -> None:
        self.schedule, self._plan, self.now = Schedule(config, num_workers), iter(SPECS), 0.0
        self.schedule.start(self.now)

    def after(self, event: Event, later_s: float = 0.0) -> list[Command]:
        self.now += later_s
        seen: list[Command] = []
        waiting = deque(self.schedule.handle(event, self.now))
        while waiting:
            seen.append(waiting.popleft())
            if isinstance(seen[-1], TakeClip):
                waiting.extend(self.schedule.handle(Planned(next(self._plan, None)), self.now))
        return seen

    def ready(
        self, number: WorkerId, node: str = NODES[0], spooled: frozenset[str] = frozenset()
    ) -> list[StartClip]:
        return started(self.after(WorkerReady(number, f"host:{number}", node, spooled)))

    def done(self, number: WorkerId, one: ClipSpec, memory_bytes: int = 1_000) -> list[Command]:
        return self.after(
            ClipEnded(number, ClipDone(one.clip_id, one.name, "", 1, (), memory_bytes=memory_bytes))
        )

    def fails(
        self, number: WorkerId, attempt: Attempt, kind: FailureClass, later_s: float = 0.0
    ) -> list[Command]:
        return self.after(
            ClipEnded(number, failure(attempt.spec, attempt.number, number, kind)), later_s
        )


def with_retry(**changes: object) -> RunConfig:
    return replace(CONFIG, retry=replace(CONFIG.retry, **changes))
