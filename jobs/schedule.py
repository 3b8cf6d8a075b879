"""Which clip goes to which worker, and what follows when one fails: a state machine without Ray, clocks or I/O.

Events go in, commands come out, and `dispatch` carries these out on a cluster. So every order of events that a night
can bring is tested by the thousand. Whether one clip is tried again is `retry`'s to say. Loads without torch.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from jobs.config import RunConfig
from jobs.errors import JobError, NoWorkersError, StoreRefusedError, TooManyFailuresError
from jobs.retry import Decision, GiveUp, Retry, Stop, decide
from jobs.types import ClipDone, ClipFailed, ClipSpec

MAX_LOAD_FAILURES = 3  # workers lost in a row before one of them was ready
WorkerId = int  # in the order in which they were asked for; none is used twice


@dataclass(frozen=True)
class Planned:
    """The next clip of the plan, as `TakeClip` asked for it; None where there is no other."""

    spec: ClipSpec | None


@dataclass(frozen=True)
class WorkerReady:
    """The worker has loaded its model."""

    worker: WorkerId


@dataclass(frozen=True)
class WorkerNotLoaded:
    """The worker has not loaded its model.

    Args:
        is_final: another attempt would fail in the same way.
    """

    worker: WorkerId
    message: str
    is_final: bool = False


@dataclass(frozen=True)
class ClipEnded:
    """A worker has answered for a clip."""

    worker: WorkerId
    outcome: ClipDone | ClipFailed


@dataclass(frozen=True)
class WorkerLost:
    """The worker's process is gone, with the clips that it had.

    Args:
        label: what people call the worker.
        is_charged: to its clips' attempts; not where the worker was taken away on purpose.
    """

    worker: WorkerId
    label: str
    message: str
    is_charged: bool = True


Event = Planned | WorkerReady | WorkerNotLoaded | ClipEnded | WorkerLost


@dataclass(frozen=True)
class StartWorker:
    """Ask for a worker, which answers `WorkerReady` or `WorkerNotLoaded`."""

    worker: WorkerId


@dataclass(frozen=True)
class StopWorker:
    """End the worker's process, if it lives; it is never heard of again."""

    worker: WorkerId
    message: str


@dataclass(frozen=True)
class TakeClip:
    """Answer with the plan's next clip: a worker has room for it."""


@dataclass(frozen=True)
class StartClip:
    """Have the worker render a clip."""

    worker: WorkerId
    spec: ClipSpec
    attempt: int


@dataclass(frozen=True)
class ReportFailure:
    """Write down a failed attempt, and with `GiveUp` that the clip is in quarantine."""

    failed: ClipFailed
    decision: Decision


@dataclass(frozen=True)
class Halt:
    """End the run: nothing further can come of it."""

    error: JobError


Command = StartWorker | StopWorker | TakeClip | StartClip | ReportFailure | Halt


@dataclass(frozen=True)
class Attempt:
    """One try at one clip."""

    spec: ClipSpec
    number: int


@dataclass(eq=False)
class _Worker:
    """What a worker has been given; not ready while it loads its model."""

    is_ready: bool = False
    num_failures_in_a_row: int = 0
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])  # by clip_id


class Schedule:
    """The clips of one model on a pool of workers.

    Args:
        config: of the run.
        num_workers: to keep.
    """

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        self._config = config
        self._num_workers = num_workers
        self._next_worker: WorkerId = 0
        self._workers: dict[WorkerId, _Worker] = {}
        self._again: deque[Attempt] = deque()
        self._fresh: deque[Attempt] = deque()  # at most one, on its way from the plan to a worker
        self._is_taking = False
        self._is_plan_over = False
        self._load_failures = 0
        self._num_done = 0
        self._num_given_up = 0

    @property
    def is_finished(self) -> bool:
        """Nothing is left to start and nothing is in flight."""
        has_work = self._again or self._fresh or any(worker.attempts for worker in self._workers.values())
        return self._is_plan_over and not has_work

    def start(self) -> list[Command]:
        """What to do before anything has happened."""
        return list(self._next_commands())

    def handle(self, event: Event) -> list[Command]:
        """What follows from an event; after `Halt` nothing does.

        What an unknown worker says comes too late and changes nothing.
        """
        commands: list[Command] = []
        for command in self._react(event):
            commands.append(command)
            if isinstance(command, Halt):
                return commands
        return [*commands, *self._next_commands()]

    def _react(self, event: Event) -> Iterator[Command]:
        match event:
            case Planned(spec):
                self._is_taking = False
                self._is_plan_over = spec is None
                if spec is not None:
                    self._fresh.append(Attempt(spec, 1))
            case WorkerReady(worker) if worker in self._workers:
                self._workers[worker].is_ready = True
                self._load_failures = 0
            case WorkerNotLoaded(worker, message, is_final) if worker in self._workers:
                yield from self._fail_load(worker, message, is_final=is_final)
            case ClipEnded(worker, outcome) if worker in self._workers:
                yield from self._end(worker, outcome)
            case WorkerLost(worker) if worker in self._workers:
                yield from self._lose(event)
            case _:
                pass

    def _next_commands(self) -> Iterator[Command]:
        """Workers for the places that are free, then clips for the workers that have room."""
        if self.is_finished:
            return
        while len(self._workers) < self._num_workers:
            self._workers[self._next_worker] = _Worker()
            yield StartWorker(self._next_worker)
            self._next_worker += 1
        while place := self._place():
            worker, attempt = place
            self._workers[worker].attempts[attempt.spec.clip_id] = attempt
            yield StartClip(worker, attempt.spec, attempt.number)
        if self._has_room_for_fresh() and not (self._is_taking or self._is_plan_over or self._fresh):
            self._is_taking = True
            yield TakeClip()

    def _ready_with_room(self) -> list[WorkerId]:
        """Those with the least to do first."""
        ready = [worker for worker, state in self._workers.items() if state.is_ready and self._has_room(state)]
        return sorted(ready, key=lambda worker: len(self._workers[worker].attempts))

    def _has_room(self, worker: _Worker) -> bool:
        is_alone = any(attempt.number > 1 for attempt in worker.attempts.values())
        return not is_alone and len(worker.attempts) <= self._config.workers.spool_clips

    def _has_room_for_fresh(self) -> bool:
        return not self._again and bool(self._ready_with_room())

    def _place(self) -> tuple[WorkerId, Attempt] | None:
        """The next attempt and the worker for it.

        A clip that is tried again gets a worker to itself: if it kills that one too, no other clip is blamed.
        """
        waiting = self._again or self._fresh
        if not waiting:
            return None
        for worker in self._ready_with_room():
            if waiting[0].number == 1 or not self._workers[worker].attempts:
                return worker, waiting.popleft()
        return None

    def _end(self, worker: WorkerId, outcome: ClipDone | ClipFailed) -> Iterator[Command]:
        state = self._workers[worker]
        attempt = state.attempts.pop(outcome.clip_id, None)
        if attempt is None:
            return
        if isinstance(outcome, ClipDone):
            self._num_done += 1
            state.num_failures_in_a_row = 0
            return
        yield from self._fail(attempt, outcome)
        state.num_failures_in_a_row += outcome.failure_class != "request"
        if state.num_failures_in_a_row >= self._config.retry.max_failures_of_worker:
            message = f"set aside after {state.num_failures_in_a_row} failures in a row"
            yield from self._lose(WorkerLost(worker, outcome.worker, message, is_charged=False))

    def _fail_load(self, worker: WorkerId, message: str, *, is_final: bool) -> Iterator[Command]:
        """A worker that is not to be had: the others go on without it; without any other the run ends."""
        del self._workers[worker]
        yield StopWorker(worker, message)
        self._load_failures += 1
        if not (is_final or self._load_failures >= MAX_LOAD_FAILURES):
            return
        if not any(other.is_ready for other in self._workers.values()):
            yield Halt(NoWorkersError(f"no worker is to be had: {message}"))
        self._num_workers -= 1
        self._load_failures = 0

    def _lose(self, lost: WorkerLost) -> Iterator[Command]:
        """Takes a worker out of the pool and decides about each clip that it had."""
        state = self._workers.pop(lost.worker)
        yield StopWorker(lost.worker, lost.message)
        for attempt in state.attempts.values():
            if not lost.is_charged:
                self._again.append(attempt)
                continue
            failed = ClipFailed(
                clip_id=attempt.spec.clip_id,
                name=attempt.spec.name,
                attempt=attempt.number,
                failure_class="worker",
                may_pass_on_retry=True,
                error_type="WorkerLostError",
                message=lost.message,
                traceback="",
                worker=lost.label,
            )
            yield from self._fail(attempt, failed)

    def _fail(self, attempt: Attempt, failed: ClipFailed) -> Iterator[Command]:
        decision = decide(failed, self._config.retry)
        yield ReportFailure(failed, decision)
        match decision:
            case Retry(number):
                self._again.append(Attempt(attempt.spec, number))
            case GiveUp():
                self._num_given_up += 1
                yield from self._check_share()
            case Stop(reason):
                yield Halt(StoreRefusedError(reason))

    def _check_share(self) -> Iterator[Command]:
        """Stops a run that loses more than it renders, once there are enough clips to tell."""
        num_ended, limits = self._num_done + self._num_given_up, self._config.retry
        if num_ended >= limits.min_clips_to_stop and self._num_given_up > limits.max_given_up_share * num_ended:
            message = f"{self._num_given_up} of the first {num_ended} clips were given up; their failures say why"
            yield Halt(TooManyFailuresError(message))
