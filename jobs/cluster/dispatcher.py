"""Carries out a schedule on a Ray cluster: starts actors, hands them clips, and says what became of them.

A thin loop around `ray.wait`. What is to be done is `schedule`'s to say, how a clip is rendered `worker`'s. Clips are
taken from the plan only when an actor has room, so a million need no memory.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
import ray.exceptions

from jobs.cluster.connection import draining_nodes
from jobs.cluster.launcher import Placed, placing_for
from jobs.cluster.ray_errors import first_line, last_line
from jobs.config import RunConfig
from jobs.failures import classify
from jobs.redaction import redact
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
from jobs.schedule.retry import Decision
from jobs.schedule.schedule import Schedule
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipSpec, LostRank, WorkerHeartbeat
from jobs.worker.setup import LoadedWorker, WorkerSetup
from pipelines.errors import RankPreemptedError

WAIT_S = 0.5  # how often the loop looks up when nothing happens
DRAIN_POLL_S = 5.0  # how often the cluster is asked which nodes it will take away


class Observer(Protocol):
    """Who is told what happens, as it happens."""

    def worker_ready(self, label: str, device: str) -> None: ...

    def worker_stopped(
        self, label: str, message: str, *, is_ready: bool, is_lost: bool
    ) -> None: ...

    def worker_heartbeat(self, heartbeat: WorkerHeartbeat) -> None: ...

    def clip_started(self, label: str, attempt: Attempt) -> None: ...

    def clip_done(self, done: ClipDone) -> None: ...

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None: ...

    def turn(self) -> None:
        """Called at least every `WAIT_S` seconds. What it raises ends the run."""
        ...


@dataclass(eq=False)
class _Worker:
    """An actor, a single worker or a group, and what it has been asked."""

    placed: Placed
    loaded: LoadedWorker | None = None  # None while it loads
    is_gone: bool = False  # its process is
    clips: dict[Any, str] = field(default_factory=dict[Any, str])  # ids, by the task's reference
    heartbeat: Any = None  # the reference of the answer that is awaited
    heartbeat_due: float = 0.0

    @property
    def label(self) -> str:
        return self.loaded.label if self.loaded else "a worker that was loading"

    @property
    def awaited(self) -> list[Any]:
        return (
            [*self.clips, *([self.heartbeat] if self.heartbeat is not None else [])]
            if self.loaded
            else [self.placed.load]
        )


class Dispatcher:
    """Renders the clips of one model on a pool of workers: single actors, or groups of them.

    Args:
        setup: what each worker is told.
        config: of the run.
        num_workers: to keep.
        num_gpus: that each actor, or each rank of a group, reserves; 0 renders on the CPU.
        observer: is told.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        config: RunConfig,
        num_workers: int,
        num_gpus: int,
        observer: Observer,
    ) -> None:
        self._setup = setup
        self._config = config
        self._placing = placing_for(setup, config, num_gpus)
        self._observer = observer
        self._schedule = Schedule(config, num_workers)
        self._workers: dict[WorkerId, _Worker] = {}
        self._stop_reason: str | None = None
        self._idle = threading.Event()  # never set
        self._drain_poll_due = 0.0

    def request_stop(self, reason: str) -> None:
        """Ends the run soon: what is in flight may finish for a while. Safe in a signal's handler."""
        self._stop_reason = reason  # and no lock: the thread that is interrupted may hold it

    def run(self, specs: Iterator[ClipSpec]) -> None:
        """Returns when nothing is left to start and nothing is in flight.

        Raises:
            NoWorkersError: no worker can load the model.
            StoreRefusedError: the store takes no more clips; StoreUnavailableError: it has taken none for too long.
            TooManyFailuresError: too many of the clips were given up.
            StoppedError: as was requested.
        """
        try:
            self._carry_out(self._schedule.start(time.monotonic()), specs)
            while not self._schedule.is_finished:
                for event in self._wait():
                    self._carry_out(self._schedule.handle(event, time.monotonic()), specs)
                self._observer.turn()
        finally:
            for worker in self._workers.values():
                self._placing.stop(worker.placed, may_return=False)
            self._placing.close()

    def _carry_out(self, commands: list[Command], specs: Iterator[ClipSpec]) -> None:
        """Does as it is told, and what follows from it at once."""
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            match command:
                case StartWorker(worker, avoid):
                    self._workers[worker] = _Worker(self._placing.start(avoid))
                case StopWorker(worker, message, is_lost, may_return):
                    stopped = self._workers.pop(worker)
                    self._placing.stop(
                        stopped.placed, may_return=may_return and not stopped.is_gone
                    )
                    is_ready = stopped.loaded is not None
                    self._observer.worker_stopped(
                        stopped.label, message, is_ready=is_ready, is_lost=is_lost
                    )
                case TakeClip():
                    waiting.extend(
                        self._schedule.handle(Planned(next(specs, None)), time.monotonic())
                    )
                case StartClip(worker, attempt):
                    self._start_clip(self._workers[worker], attempt)
                case ReportFailure(failed, decision):
                    self._observer.clip_failed(failed, decision)
                case Halt(error):
                    raise error

    def _start_clip(self, worker: _Worker, attempt: Attempt) -> None:
        reference = worker.placed.actor.render.remote(
            attempt.spec, attempt.number, attempt.uses_exact_attention
        )
        worker.clips[reference] = attempt.spec.clip_id
        self._observer.clip_started(worker.label, attempt)

    def _wait(self) -> Iterator[Event]:
        """What happened next, or within `WAIT_S` nothing but time."""
        self._ask_for_heartbeats()
        owners = {
            reference: worker
            for worker, state in self._workers.items()
            for reference in state.awaited
        }
        ready: list[Any] = []
        if owners:
            ray.wait([*owners], num_returns=1, timeout=WAIT_S)
            ready, _ = ray.wait([*owners], num_returns=len(owners), timeout=0)
        else:  # every worker is idle, and none is asked anything just now
            self._idle.wait(WAIT_S)
        lost: list[
            Event
        ] = []  # told last: what a worker finished before it died is not charged to it
        for reference in ready:
            worker = owners[reference]
            state = self._workers.get(worker)
            if state is None:  # it was stopped for what another of its references said
                continue
            if state.loaded is None:
                yield self._loaded(worker, state)
                continue
            event = (
                self._heartbeat_arrived(worker, state)
                if reference == state.heartbeat
                else self._ended(worker, state, reference)
            )
            if isinstance(event, WorkerLost):
                lost.append(event)
            else:
                yield event
        yield from lost
        if self._stop_reason is not None:
            yield StopRequested(self._stop_reason)
        if time.monotonic() >= self._drain_poll_due:
            self._drain_poll_due = time.monotonic() + DRAIN_POLL_S
            yield NodesDraining(draining_nodes())
        yield Tick()

    def _ask_for_heartbeats(self) -> None:
        now = time.monotonic()
        for state in self._workers.values():
            if state.loaded is not None and state.heartbeat is None and now >= state.heartbeat_due:
                state.heartbeat = state.placed.actor.heartbeat.remote()
                state.heartbeat_due = now + self._config.stall.heartbeat_interval_s

    def _loaded(self, worker: WorkerId, state: _Worker) -> Event:
        try:
            loaded: LoadedWorker = ray.get(state.placed.load)
        except ray.exceptions.RayError as error:
            return not_loaded(worker, self._setup.model.name, error)
        state.loaded, state.placed.nodes = loaded, loaded.nodes
        identity = loaded.identity
        self._observer.worker_ready(state.label, identity.device)
        return WorkerReady(
            worker, state.label, identity.node_id, loaded.spooled, loaded.nodes - {identity.node_id}
        )

    def _heartbeat_arrived(self, worker: WorkerId, state: _Worker) -> Event:
        try:
            heartbeat: WorkerHeartbeat | LostRank = ray.get(state.heartbeat)
        except ray.exceptions.RayError as error:
            return self._lost(worker, state, error)
        state.heartbeat = None
        if isinstance(heartbeat, LostRank):
            return WorkerLost(
                worker, redact(heartbeat.message), is_preempted=heartbeat.is_preempted
            )
        self._observer.worker_heartbeat(heartbeat)
        return HeartbeatReceived(worker, heartbeat)

    def _ended(self, worker: WorkerId, state: _Worker, reference: Any) -> Event:
        try:
            outcome: ClipOutcome | LostRank = ray.get(reference)
        except (
            ray.exceptions.RayError
        ) as error:  # the process died; a clip's own failure comes back as a value
            return self._lost(worker, state, error)
        del state.clips[reference]
        if isinstance(outcome, LostRank):
            return WorkerLost(worker, redact(outcome.message), is_preempted=outcome.is_preempted)
        if isinstance(outcome, ClipDone):
            self._observer.clip_done(outcome)
        return ClipEnded(worker, outcome)

    def _lost(self, worker: WorkerId, state: _Worker, error: ray.exceptions.RayError) -> WorkerLost:
        state.is_gone = True
        return WorkerLost(worker, reason_of(error), is_preempted=is_preempted(error))


def not_loaded(worker: WorkerId, model: str, error: ray.exceptions.RayError) -> WorkerNotLoaded:
    """Why a worker has not loaded: what it raised, or its process is gone."""
    is_charged = not is_preempted(error)
    if isinstance(error, ray.exceptions.RayTaskError):
        message = redact(f"could not load {model}: {error.cause}")
        failure_class, may_pass = classify(error.cause)
        is_store = may_pass and failure_class == "store"
        return WorkerNotLoaded(
            worker, message, not may_pass, is_store=is_store, is_charged=is_charged
        )
    is_final = isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
    message = redact(last_line(error) if is_final else first_line(error))
    return WorkerNotLoaded(worker, message, is_final, is_charged=is_charged)


def is_preempted(error: ray.exceptions.RayError) -> bool:
    """Of a worker's machine, or of any that a group lies on, as its own process has seen it."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return isinstance(error.cause, RankPreemptedError)
    return isinstance(error, ray.exceptions.RayActorError) and bool(error.preempted)


def reason_of(error: ray.exceptions.RayError) -> str:
    """Why an actor is of no use any more: it is gone, or what it raised, where it should have given a value."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return redact(f"{type(error.cause).__name__}: {first_line(error.cause)}")
    return first_line(error)
