"""Carries out a schedule on a Ray cluster: starts actors, hands them clips, and says what became of them.

A thin loop around `ray.wait`. What is to be done is `schedule`'s to say, how a clip is rendered `worker`'s. Clips are
taken from the plan only when an actor has room, so a million need no memory.
"""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
import ray.exceptions

from jobs.actors import RenderActor
from jobs.config import RunConfig
from jobs.errors import NoWorkersError
from jobs.records import WorkerIdentity
from jobs.retry import Decision
from jobs.schedule import (
    ClipEnded,
    Command,
    Event,
    Halt,
    Planned,
    ReportFailure,
    Schedule,
    StartClip,
    StartWorker,
    StopWorker,
    TakeClip,
    WorkerId,
    WorkerLost,
    WorkerNotLoaded,
    WorkerReady,
)
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipSpec
from jobs.worker import WorkerSetup

WAIT_S = 1.0  # how often the loop looks up when nothing happens


class Observer(Protocol):
    """Who is told what happens, as it happens."""

    def worker_ready(self, identity: WorkerIdentity) -> None: ...

    def worker_lost(self, message: str) -> None: ...

    def clip_done(self, done: ClipDone) -> None: ...

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None: ...


@dataclass(eq=False)
class _Worker:
    """An actor and what it has been asked."""

    actor: Any
    asked_at: float
    load: Any  # the reference of its load
    identity: WorkerIdentity | None = None  # None while it loads
    clips: dict[Any, str] = field(default_factory=dict[Any, str])  # ids, by the task's reference

    @property
    def label(self) -> str:
        return f"{self.identity.host}:{self.identity.pid}" if self.identity else "a worker that was loading"

    @property
    def awaited(self) -> list[Any]:
        return [*self.clips] if self.identity else [self.load]


class Dispatcher:
    """Renders the clips of one model on a pool of actors.

    Args:
        setup: what each worker is told.
        config: of the run.
        num_workers: actors to keep.
        num_gpus: that each reserves; 0 renders on the CPU.
        observer: is told.
    """

    def __init__(
        self, setup: WorkerSetup, config: RunConfig, num_workers: int, num_gpus: int, observer: Observer
    ) -> None:
        self._setup = setup
        self._config = config
        self._num_gpus = num_gpus
        self._observer = observer
        self._schedule = Schedule(config, num_workers)
        self._workers: dict[WorkerId, _Worker] = {}

    def run(self, specs: Iterator[ClipSpec]) -> None:
        """Returns when nothing is left to start and nothing is in flight.

        Raises:
            NoWorkersError: no worker can load the model.
            StoreRefusedError: the store takes no more clips.
            TooManyFailuresError: too large a share of the clips was given up.
        """
        try:
            self._carry_out(self._schedule.start(), specs)
            while not self._schedule.is_finished:
                for event in self._wait():
                    self._carry_out(self._schedule.handle(event), specs)
        finally:
            for worker in self._workers.values():
                ray.kill(worker.actor)

    def _carry_out(self, commands: list[Command], specs: Iterator[ClipSpec]) -> None:
        """Does as it is told, and what follows from it at once."""
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            match command:
                case StartWorker(worker):
                    self._start_worker(worker)
                case StopWorker(worker, message):
                    self._stop_worker(worker, message)
                case TakeClip():
                    waiting.extend(self._schedule.handle(Planned(next(specs, None))))
                case StartClip(worker, spec, attempt):
                    owner = self._workers[worker]
                    owner.clips[owner.actor.render.remote(spec, attempt)] = spec.clip_id
                case ReportFailure(failed, decision):
                    self._observer.clip_failed(failed, decision)
                case Halt(error):
                    raise error

    def _start_worker(self, worker: WorkerId) -> None:
        actor_class: Any = RenderActor  # ray.remote's return type hides what it adds
        actor = actor_class.options(
            num_cpus=self._config.workers.num_cpus,
            num_gpus=self._num_gpus,
            max_concurrency=self._config.workers.spool_clips + 1,
        ).remote(self._setup)
        self._workers[worker] = _Worker(actor, time.monotonic(), actor.load.remote())

    def _stop_worker(self, worker: WorkerId, message: str) -> None:
        stopped = self._workers.pop(worker)
        ray.kill(stopped.actor)
        self._observer.worker_lost(f"{stopped.label}: {message}")

    def _wait(self) -> Iterator[Event]:
        """What happened next, or nothing within `WAIT_S`."""
        owners = {reference: worker for worker, state in self._workers.items() for reference in state.awaited}
        ready, _ = ray.wait([*owners], num_returns=1, timeout=WAIT_S)
        for reference in ready:
            worker = owners[reference]
            is_loading = self._workers[worker].identity is None
            yield self._loaded(worker) if is_loading else self._ended(worker, reference)
        now, timeout_s = time.monotonic(), self._config.workers.load_timeout_s
        for worker, state in list(self._workers.items()):
            if state.identity is None and now - state.asked_at > timeout_s:
                yield WorkerNotLoaded(worker, f"not ready within {timeout_s:g} s")

    def _loaded(self, worker: WorkerId) -> Event:
        state = self._workers[worker]
        try:
            identity: WorkerIdentity = ray.get(state.load)
        except ray.exceptions.RayTaskError as error:
            message = f"could not load {self._setup.model.name}: {error.cause}"
            return WorkerNotLoaded(worker, message, is_final=True)
        except ray.exceptions.RayError as error:
            is_final = isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
            return WorkerNotLoaded(worker, last_line(error) if is_final else first_line(error), is_final=is_final)
        state.identity = identity
        self._observer.worker_ready(identity)
        return WorkerReady(worker)

    def _ended(self, worker: WorkerId, reference: Any) -> Event:
        state = self._workers[worker]
        try:
            outcome: ClipOutcome = ray.get(reference)
        except ray.exceptions.RayError as error:  # the process died; a clip's own failure comes back as a value
            return WorkerLost(worker, state.label, first_line(error))
        del state.clips[reference]
        if isinstance(outcome, ClipDone):
            self._observer.clip_done(outcome)
        return ClipEnded(worker, outcome)


def first_line(error: BaseException) -> str:
    """Ray's messages run over many lines; the first says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def last_line(error: BaseException) -> str:
    """Where Ray hands on a traceback, the last line is the error itself."""
    return str(error).rstrip().splitlines()[-1].strip()


def count_workers(resources: dict[str, float], config: RunConfig, num_gpus: int, num_clips: int) -> int:
    """How many actors to keep: as configured, or one for each device, and never more than there are clips.

    Raises:
        NoWorkersError: the cluster has room for none.
    """
    wanted = config.workers.count
    if wanted is None:
        wanted = int(resources.get("GPU", 0)) if num_gpus else int(resources.get("CPU", 0) // config.workers.num_cpus)
    if wanted < 1:
        kind = "GPU" if num_gpus else f"{config.workers.num_cpus} CPUs"
        raise NoWorkersError(f"the cluster has no {kind} for a worker; it has {resources}")
    return max(1, min(wanted, num_clips))


def cluster_resources() -> dict[str, float]:
    """What the cluster has in all, by Ray's names."""
    return {name: float(amount) for name, amount in ray.cluster_resources().items()}


def cluster_nodes() -> list[dict[str, object]]:
    """The nodes that are alive: id, host and resources."""
    return [
        {
            "node_id": node["NodeID"],
            "host": node["NodeManagerHostname"],
            "resources": {
                name: node["Resources"][name] for name in ("CPU", "GPU", "memory") if name in node["Resources"]
            },
        }
        for node in ray.nodes()
        if node["Alive"]
    ]
