"""Workers of a scoring run on Ray, one task at a time each.

Decides how many workers there are, and what happens to the task of one that dies or stalls: another
worker tries it again, twice; then it counts as failed, and the run goes on. A score is written once
whoever writes it, so that a task which is done twice harms nothing.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import ray

from jobs.cluster.answers import Answer, Answers
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.ray_errors import loss_reason
from jobs.cluster.scoring.score_actor import REMOTE_SCORE_ACTOR
from jobs.errors import JobError, RefusedError, StoppedError
from jobs.redaction import redact
from jobs.scoring.tasks import ScoringSetup, Task, TaskFailed, TaskOutcome
from jobs.settings.run_config import RunConfig
from pipelines.errors import PipelineError

MAX_TRIES = 3
POLL_S = 1.0
BACK_OFF_S = 5.0  # before a task is tried again after an outage of the store
TASK_TIMEOUT_S = 900.0
MAX_LOST = (
    10  # workers without a task done in between; then the cluster or the weights are at fault
)


@dataclass(eq=False)
class _Worker:
    """An actor, and the task that it does; None while it loads.

    Args:
        since_s: begin of the load or the task, by a monotonic clock.
    """

    actor: Any
    since_s: float
    is_loaded: bool = False
    task: Task | None = None


class RayPool:
    """Workers on the cluster that this process has joined.

    Args:
        setup: the setup of each worker.
        config: settings of the run: `workers` decides number and place of the actors.
        view: the cluster as it is; it decides if workers take GPUs.
        task_timeout_s: seconds that a task may take; then its worker is killed.
    """

    def __init__(
        self,
        setup: ScoringSetup,
        config: RunConfig,
        view: ClusterView,
        task_timeout_s: float = TASK_TIMEOUT_S,
    ) -> None:
        self._setup = setup
        self._workers_config = config.workers
        self._task_timeout_s = task_timeout_s
        self._num_gpus = _gpus_of(config, view)
        self._most = config.workers.count or _num_places(config, view, self._num_gpus)
        self._answers = Answers()
        self._workers: dict[int, _Worker] = {}
        self._num_started = self._num_lost = 0
        self._waiting: deque[Task] = deque()
        self._tries: dict[Task, int] = {}

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        coming = iter(tasks)
        while True:
            self._give(coming)
            if not self._busy:
                return
            for answer in self._answers.wait(POLL_S):
                if (outcome := self._take(answer)) is not None:
                    yield outcome
            for number in self._overdue():
                if (outcome := self._lose(number, "it took too long")) is not None:
                    yield outcome

    def close(self) -> None:
        """End all workers. Until then they keep the measures for another call of `run`."""
        for worker in self._workers.values():
            ray.kill(worker.actor)
        self._workers.clear()

    @property
    def _busy(self) -> bool:
        return any(worker.task is not None for worker in self._workers.values()) or bool(
            self._waiting
        )

    def _give(self, coming: Iterator[Task]) -> None:
        """Give a task to each worker that has none, and start workers while there are tasks."""
        for worker_number, worker in self._workers.items():
            if worker.is_loaded and worker.task is None:
                if (task := self._next(coming)) is None:
                    return
                self._send(worker_number, worker, task)
        num_loading = sum(not worker.is_loaded for worker in self._workers.values())
        while len(self._workers) < self._most:
            if len(self._waiting) <= num_loading:  # for the workers that load
                if (task := next(coming, None)) is None:
                    break
                self._waiting.append(task)
            self._start()
            num_loading += 1

    def _next(self, coming: Iterator[Task]) -> Task | None:
        return self._waiting.popleft() if self._waiting else next(coming, None)

    def _start(self) -> None:
        workers = self._workers_config
        actor = REMOTE_SCORE_ACTOR.options(
            num_cpus=workers.num_cpus,
            num_gpus=self._num_gpus,
            resources=dict(workers.resources),
            label_selector=dict(workers.labels),
        ).remote(self._setup)
        number = self._num_started
        self._num_started += 1
        self._workers[number] = _Worker(actor, time.monotonic())
        self._answers.expect(0, number, "loaded", actor.load.remote())

    def _send(self, number: int, worker: _Worker, task: Task) -> None:
        worker.task, worker.since_s = task, time.monotonic()
        self._answers.expect(0, number, "clip", worker.actor.do.remote(task))

    def _take(self, answer: Answer) -> TaskOutcome | None:
        """Return the outcome of a task that has ended; None if it is tried again, or of a load."""
        worker = self._workers.get(answer.worker)
        if worker is None:  # the answer of a worker that was killed
            return None
        if answer.error is not None:
            self._refuse_broken(answer)
            return self._lose(answer.worker, loss_reason(answer.error))
        if answer.call == "loaded":
            worker.is_loaded = True
            return None
        worker.task, self._num_lost = None, 0
        outcome: TaskOutcome = answer.value
        if isinstance(outcome, TaskFailed) and outcome.may_pass_on_retry:
            return self._again(outcome.task, outcome.message, BACK_OFF_S)
        self._tries.pop(outcome.task, None)
        return outcome

    @staticmethod
    def _refuse_broken(answer: Answer) -> None:
        """Raise the error of a worker that could not load the measures: another could not either.

        Raises:
            RefusedError: naming the reason.
        """
        cause = getattr(answer.error, "cause", None)
        if answer.call == "loaded" and isinstance(cause, (PipelineError, JobError)):
            raise RefusedError(redact(f"a worker cannot load the measures: {cause}")) from cause

    def _lose(self, number: int, reason: str) -> TaskFailed | None:
        """End a worker, and put its task back."""
        worker = self._workers.pop(number)
        ray.kill(worker.actor)
        self._num_lost += 1
        if self._num_lost >= MAX_LOST:
            raise StoppedError(f"{MAX_LOST} workers were lost one after another: {reason}")
        if worker.task is None:
            return None
        return self._again(worker.task, f"its worker was lost: {reason}", 0.0)

    def _again(self, task: Task, message: str, back_off_s: float) -> TaskFailed | None:
        tries = self._tries[task] = self._tries.get(task, 1) + 1
        if tries > MAX_TRIES:
            self._tries.pop(task)
            return TaskFailed(task, f"{message}; tried {MAX_TRIES} times")
        time.sleep(back_off_s)
        self._waiting.append(task)
        return None

    def _overdue(self) -> list[int]:
        """Return the workers whose load or task takes too long; one that waits for a place does."""
        now, workers = time.monotonic(), self._workers_config
        place_s = workers.wait_for_resources_s
        load_s = workers.load_timeout_s + (float("inf") if place_s is None else place_s)
        return [
            number
            for number, worker in self._workers.items()
            if (worker.task is not None and now - worker.since_s > self._task_timeout_s)
            or (not worker.is_loaded and now - worker.since_s > load_s)
        ]


def _gpus_of(config: RunConfig, view: ClusterView) -> float:
    """Return the GPUs of a worker: one, or its share, if the cluster has any; else none."""
    wanted = config.workers.num_gpus
    has_gpu = any(node.get("GPU", 0.0) > 0 for node in view.machines())
    return (wanted or 1.0) if wanted is not None or has_gpu else 0.0


def _num_places(config: RunConfig, view: ClusterView, num_gpus: float) -> int:
    """Return the number of workers that the cluster has room for now; at least one."""
    num_cpus = config.workers.num_cpus
    places = (
        min(
            int(node.get("CPU", 0.0) // num_cpus),
            int(node.get("GPU", 0.0) // num_gpus) if num_gpus else 10**6,
        )
        for node in view.machines()
    )
    return max(sum(places), 1)
