"""Keeps a pool of actors busy with clips until every clip is committed or given up.

A thin loop around `ray.wait`: it starts, waits and replaces; whether a clip is tried again is `retry`'s to say, how a
clip is rendered `worker`'s. Clips are taken from the plan only when an actor has room, so a million need no memory.
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
from jobs.errors import NoWorkersError, StoreRefusedError
from jobs.records import WorkerIdentity
from jobs.retry import Decision, Retry, Stop, decide
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipSpec
from jobs.worker import WorkerSetup

WAIT_S = 1.0  # how often the loop looks up when nothing happens
MAX_LOAD_FAILURES = 3  # workers lost in a row before one of them was ready


class Observer(Protocol):
    """Who is told what happens, as it happens."""

    def worker_ready(self, identity: WorkerIdentity) -> None: ...

    def worker_lost(self, message: str) -> None: ...

    def clip_done(self, done: ClipDone) -> None: ...

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None: ...


@dataclass(frozen=True)
class Attempt:
    """One try at one clip."""

    spec: ClipSpec
    number: int


@dataclass(eq=False)
class _Worker:
    """An actor and what it was given."""

    actor: Any
    asked_at: float
    identity: WorkerIdentity | None = None  # None while it loads
    attempts: dict[Any, Attempt] = field(default_factory=dict[Any, Attempt])  # by the task's reference

    @property
    def label(self) -> str:
        return f"{self.identity.host}:{self.identity.pid}" if self.identity else "a worker that was loading"


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
        self._num_workers = num_workers
        self._num_gpus = num_gpus
        self._observer = observer
        self._workers: list[_Worker] = []
        self._loading: dict[Any, _Worker] = {}  # by the reference of its load
        self._again: deque[Attempt] = deque()
        self._load_failures = 0

    def run(self, specs: Iterator[ClipSpec]) -> None:
        """Returns when nothing is left to start and nothing is in flight.

        Raises:
            NoWorkersError: no worker can load the model.
            StoreRefusedError: the store takes no more clips.
        """
        fresh = (Attempt(spec, 1) for spec in specs)
        try:
            self._replace_workers()
            while self._fill(fresh) or self._in_flight():
                self._wait()
                self._replace_workers()
        finally:
            for worker in self._workers:
                ray.kill(worker.actor)

    def _in_flight(self) -> bool:
        return any(worker.attempts for worker in self._workers)

    def _fill(self, fresh: Iterator[Attempt]) -> bool:
        """Gives work to whoever has room.

        Returns:
            Whether there is work that found no room; then it waits in `_again`.
        """
        while given := self._give_one(fresh):
            worker, attempt = given
            worker.attempts[worker.actor.render.remote(attempt.spec, attempt.number)] = attempt
        if not self._again:
            self._again.extend(attempt for attempt in [next(fresh, None)] if attempt is not None)
        return bool(self._again)

    def _give_one(self, fresh: Iterator[Attempt]) -> tuple[_Worker, Attempt] | None:
        """The next attempt and the worker with the least to do that can take it."""
        ready = [worker for worker in self._workers if worker.identity is not None and self._has_room(worker)]
        for worker in sorted(ready, key=lambda worker: len(worker.attempts)):
            attempt = self._next(worker, fresh)
            if attempt is not None:
                return worker, attempt
        return None

    def _has_room(self, worker: _Worker) -> bool:
        is_alone = any(attempt.number > 1 for attempt in worker.attempts.values())
        return not is_alone and len(worker.attempts) <= self._config.workers.spool_clips

    def _next(self, worker: _Worker, fresh: Iterator[Attempt]) -> Attempt | None:
        """A clip that is tried again gets a worker to itself: if it kills that one too, no other clip is blamed."""
        if not self._again:
            return next(fresh, None)
        if self._again[0].number > 1 and worker.attempts:
            return None
        return self._again.popleft()

    def _wait(self) -> None:
        references = [*self._loading, *(reference for worker in self._workers for reference in worker.attempts)]
        ready, _ = ray.wait(references, num_returns=1, timeout=WAIT_S)
        for reference in ready:
            if reference in self._loading:
                self._finish_load(reference)
            else:
                owner = next(worker for worker in self._workers if reference in worker.attempts)
                self._finish_clip(owner, reference)
        now = time.monotonic()
        for worker in list(self._loading.values()):
            if now - worker.asked_at > self._config.workers.load_timeout_s:
                self._fail_load(worker, f"not ready within {self._config.workers.load_timeout_s:g} s")

    def _finish_load(self, reference: Any) -> None:
        worker = self._loading[reference]
        try:
            identity: WorkerIdentity = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            self._fail_load(worker, f"could not load {self._setup.model.name}: {error.cause}", is_final=True)
            return
        except ray.exceptions.RayError as error:
            is_final = isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
            self._fail_load(worker, last_line(error) if is_final else first_line(error), is_final=is_final)
            return
        del self._loading[reference]
        self._load_failures = 0
        worker.identity = identity
        self._observer.worker_ready(identity)

    def _finish_clip(self, worker: _Worker, reference: Any) -> None:
        try:
            outcome: ClipOutcome = ray.get(reference)
        except ray.exceptions.RayError as error:  # the process died; a clip's own failure comes back as a value
            self._lose(worker, first_line(error))
            return
        attempt = worker.attempts.pop(reference)
        if isinstance(outcome, ClipDone):
            self._observer.clip_done(outcome)
        else:
            self._fail(attempt, outcome)

    def _fail_load(self, worker: _Worker, message: str, *, is_final: bool = False) -> None:
        """A worker that is not to be had: the others go on without it; without any other the run ends.

        Args:
            is_final: another attempt would fail in the same way.
        """
        self._lose(worker, message)
        self._load_failures += 1
        if any(other.identity is not None for other in self._workers):
            if is_final or self._load_failures >= MAX_LOAD_FAILURES:
                self._num_workers -= 1
                self._load_failures = 0
        elif is_final or self._load_failures >= MAX_LOAD_FAILURES:
            raise NoWorkersError(f"no worker is to be had: {message}")

    def _lose(self, worker: _Worker, message: str) -> None:
        """Takes a dead worker out of the pool and decides about each clip that it had."""
        self._workers.remove(worker)
        self._loading = {reference: other for reference, other in self._loading.items() if other is not worker}
        ray.kill(worker.actor)
        self._observer.worker_lost(f"{worker.label}: {message}")
        for attempt in worker.attempts.values():
            lost = ClipFailed(
                clip_id=attempt.spec.clip_id,
                name=attempt.spec.name,
                attempt=attempt.number,
                failure_class="worker",
                may_pass_on_retry=True,
                error_type="WorkerLostError",
                message=message,
                traceback="",
                worker=worker.label,
            )
            self._fail(attempt, lost)

    def _fail(self, attempt: Attempt, failed: ClipFailed) -> None:
        decision = decide(failed, self._config.retry)
        if isinstance(decision, Retry):
            self._again.append(Attempt(attempt.spec, decision.attempt))
        self._observer.clip_failed(failed, decision)
        if isinstance(decision, Stop):
            raise StoreRefusedError(decision.reason)

    def _replace_workers(self) -> None:
        actor_class: Any = RenderActor  # ray.remote's return type hides what it adds
        while len(self._workers) < self._num_workers:
            actor = actor_class.options(
                num_cpus=self._config.workers.num_cpus,
                num_gpus=self._num_gpus,
                max_concurrency=self._config.workers.spool_clips + 1,
            ).remote(self._setup)
            worker = _Worker(actor, time.monotonic())
            self._workers.append(worker)
            self._loading[actor.load.remote()] = worker


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
