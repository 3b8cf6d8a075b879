"""Which clip goes to which worker, and what follows when one fails: a state machine without Ray, clocks or I/O.

Events go in, with the time, and commands come out; `dispatch` carries these out on a cluster. So every order of events
that a night can bring is tested by the thousand. What becomes of a failed clip is `retry`'s to say, when one has
stalled `deadlines`', who takes it `pool`'s. Loads without torch.
"""

from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import replace

from jobs.config import RunConfig
from jobs.errors import FailureClass, StoppedError, StoreRefusedError, TooManyFailuresError
from jobs.schedule.attribution import NodeBlame
from jobs.schedule.deadlines import COMPUTING, Deadlines, kind
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
from jobs.schedule.outage import Outage
from jobs.schedule.pool import Places, Pool, PooledWorker
from jobs.schedule.recruiting import Recruiting
from jobs.schedule.retry import Quarantine, Retry, Stop, Wait, decide
from jobs.types import ClipDone, ClipFailed, WorkerHeartbeat

REPLACED_AFTER: dict[FailureClass, str] = {
    "memory": "replaced, since it ran out of memory",
    "worker": "replaced, since its device or its machine failed",
}


class Schedule:
    """The clips of one model on a pool of workers.

    Args:
        config: of the run.
        num_workers: to keep.
    """

    def __init__(self, config: RunConfig, num_workers: int) -> None:
        self._config = config
        self._now = 0.0
        self._next_worker: WorkerId = 0
        self._pool = Pool(config.workers.spool_clips + 1, config.stall.first_s)
        self._deadlines = Deadlines(config.stall)
        self._waiting: deque[Attempt] = deque()
        self._is_taking = False
        self._is_plan_over = False
        self._num_done = 0
        self._num_quarantined = 0
        self._spooled_on: dict[str, str] = {}  # node, by clip_id
        self._blame = NodeBlame(config.retry.max_losses_of_node)
        self._outage = Outage(config.retry)
        self._recruiting = Recruiting(num_workers, self._outage)
        self._draining_nodes = frozenset[str]()
        self._stop: tuple[str, float] | None = (
            None  # why, and until when what is in flight may finish
        )

    @property
    def is_finished(self) -> bool:
        """Nothing is left to start and nothing is in flight."""
        return self._is_plan_over and not (self._waiting or self._is_busy)

    @property
    def _is_busy(self) -> bool:
        return any(worker.attempts for worker in self._pool.workers.values())

    def start(self, now: float) -> list[Command]:
        """What to do before anything has happened.

        Args:
            now: seconds, of a clock that is never set back.
        """
        self._now = now
        return list(self._next_commands())

    def handle(self, event: Event, now: float) -> list[Command]:
        """What follows from an event; after `Halt` nothing does.

        What an unknown worker says comes too late and changes nothing.
        """
        self._pass_time(now)
        commands: list[Command] = []
        for command in (*self._react(event), *self._look_at_workers(), *self._look_at_clock(event)):
            commands.append(command)
            if isinstance(command, Halt):
                return commands
        if isinstance(event, HeartbeatReceived) and not commands:
            return []  # of a large farm they come by the hundred; what time allows is done at the next tick
        return [*commands, *self._next_commands()]

    def _pass_time(self, now: float) -> None:
        """Time that the driver itself slept through is held against nobody."""
        gap_s = now - self._now
        if gap_s > self._config.stall.heartbeat_timeout_s / 2:
            for worker in self._pool.workers.values():
                worker.heard_at += gap_s
                worker.asked_at += gap_s
                for clip_id, attempt in worker.attempts.items():
                    worker.attempts[clip_id] = replace(
                        attempt, started_at=attempt.started_at + gap_s
                    )
            self._outage.shift(gap_s)
        self._now = now

    def _react(self, event: Event) -> Iterator[Command]:
        workers = self._pool.workers
        match event:
            case Planned(spec):
                self._is_taking = False
                self._is_plan_over = spec is None
                if spec is not None:
                    node = self._spooled_on.pop(spec.clip_id, None)
                    self._waiting.append(Attempt(spec, node=node))
            case WorkerReady(number, label, node, spooled, others) if number in workers:
                worker = workers[number]
                worker.label, worker.node, worker.others, worker.heard_at = (
                    label,
                    node,
                    others,
                    self._now,
                )
                self._recruiting.ready()
                self._outage.end_if_before(worker.asked_at)
                self._drain()
                self._learn_of_spool(node, spooled)
            case WorkerNotLoaded(number, _) if number in workers:
                yield from self._fail_load(event)
            case HeartbeatReceived(number, heartbeat) if number in workers:
                yield from self._hear(number, heartbeat)
            case ClipEnded(number, outcome) if number in workers:
                yield from self._end(number, outcome)
            case WorkerLost(number, message, is_preempted) if number in workers:
                is_charged = not (is_preempted or workers[number].is_draining)
                charged, bystanders = workers[number].attributed() if is_charged else ((), ())
                yield from self._lose(number, message, charged, bystanders=bystanders)
            case NodesDraining(nodes):
                self._draining_nodes = nodes
                self._drain()
            case StopRequested(reason):
                self._stop = self._stop or (reason, self._now + self._config.workers.drain_s)
            case _:
                pass

    # time

    def _look_at_workers(self) -> Iterator[Command]:
        for number, worker in list(self._pool.workers.items()):
            if worker.retires is not None and not worker.attempts:
                yield self._retire(number)

    def _look_at_clock(self, event: Event) -> Iterator[Command]:
        if isinstance(event, Tick):  # when all that was said until now has been heard
            for number, worker in list(self._pool.workers.items()):
                silent_s, limit_s = self._now - worker.heard_at, self._config.workers.load_timeout_s
                if not worker.is_ready and self._now - worker.asked_at > limit_s:
                    is_none_ready = not any(other.is_ready for other in self._pool.workers.values())
                    message = f"not ready within {limit_s:g} s"
                    yield from self._fail_load(
                        WorkerNotLoaded(number, message, is_charged=is_none_ready)
                    )
                elif worker.is_ready and silent_s > self._config.stall.heartbeat_timeout_s:
                    charged, bystanders = worker.attributed()
                    message = f"no word from it for {silent_s:.0f} s"
                    yield from self._lose(number, message, charged, "stall", bystanders)
        if (
            self._stop
            and not self.is_finished
            and (self._now >= self._stop[1] or not self._is_busy)
        ):
            yield Halt(StoppedError(self._stop[0]))

    def _next_commands(self) -> Iterator[Command]:
        """Workers for the places that are free, then clips for the workers that have room."""
        if self.is_finished or self._stop:
            return
        while len(self._pool.workers) < self._recruiting.num_wanted and self._recruiting.is_open(
            self._now
        ):
            self._pool.workers[self._next_worker] = PooledWorker(
                asked_at=self._now, heard_at=self._now
            )
            yield StartWorker(self._next_worker, self._blame.to_avoid(self._pool.nodes))
            self._next_worker += 1
        while True:
            places = self._pool.places(self._now, self._recruiting.num_wanted)
            kept = places.kept_free(self._waiting)
            start = self._place_next(places, kept)
            if start is None:
                break
            yield start
        # clips that are tried again and find no place hold nobody up
        has_room = any(places.has_room(number) for number in places.open if number not in kept)
        if has_room and not (self._is_taking or self._is_plan_over):
            self._is_taking = True
            yield TakeClip()

    def _place_next(self, places: Places, kept: set[WorkerId]) -> StartClip | None:
        for attempt in self._waiting:
            number = places.place(attempt, kept)
            if number is not None:
                self._waiting.remove(attempt)
                self._pool.workers[number].take(attempt, self._now)
                return StartClip(number, attempt)
        return None

    # workers

    def _hear(self, number: WorkerId, heartbeat: WorkerHeartbeat) -> Iterator[Command]:
        worker = self._pool.workers[number]
        worker.heard_at = self._now
        worker.progress = {progress.clip_id: progress for progress in heartbeat.clips}
        if heartbeat.is_draining:
            worker.is_draining, worker.retires = True, "it was told to end"
        worker.consider_recycling(self._config.workers, heartbeat.memory_bytes)
        stalls: dict[str, str] = {}
        for clip_id, attempt in worker.attempts.items():
            progress = worker.progress.get(clip_id)
            if progress is None:
                continue
            stall = self._deadlines.stall(
                attempt, progress, is_first=kind(attempt) not in worker.kinds_done
            )
            if stall is not None:
                stalls[clip_id] = stall
            if progress.stage in COMPUTING | {
                "queue"
            }:  # the store has answered that the clip is not there
                self._outage.end_if_before(attempt.started_at)
        if stalls:
            charged = [clip_id for clip_id in stalls if worker.progress[clip_id].stage in COMPUTING]
            message = next(iter(stalls.values()))
            yield from self._lose(number, message, charged, "stall")
            if not charged:
                yield from self._note_trouble(message)

    def _retire(self, number: WorkerId) -> StopWorker:
        worker = self._pool.workers.pop(number)
        assert worker.retires is not None
        return StopWorker(number, worker.retires, is_lost=False)

    def _drain(self) -> None:
        for worker in self._pool.workers.values():
            if worker.nodes & self._draining_nodes:
                worker.is_draining, worker.retires = True, "its machine is taken away"

    def _learn_of_spool(self, node: str, spooled: frozenset[str]) -> None:
        """Clips that wait encoded on a machine's disk: those to come, and those that are to be tried again."""
        self._spooled_on |= dict.fromkeys(spooled, node)
        for index, attempt in enumerate(self._waiting):
            if attempt.spec.clip_id in spooled and attempt.node is None:
                self._waiting[index] = replace(attempt, node=node)

    def _fail_load(self, failed: WorkerNotLoaded) -> Iterator[Command]:
        del self._pool.workers[failed.worker]
        yield StopWorker(failed.worker, failed.message)
        if failed.is_store:
            yield from self._note_trouble(failed.message)
        error = self._recruiting.failed(failed, len(self._pool.workers), self._now)
        if error is not None:
            yield Halt(error)

    def _lose(
        self,
        number: WorkerId,
        message: str,
        charged: Collection[str],
        failure_class: FailureClass = "worker",
        bystanders: Collection[str] = (),
    ) -> Iterator[Command]:
        """Takes a worker out of the pool; the clips that are charged with it fail, its others go elsewhere."""
        worker = self._pool.workers.pop(number)
        yield StopWorker(number, message, may_return=worker.may_return)
        for clip_id, attempt in worker.attempts.items():
            progress = worker.progress.get(clip_id)
            if progress is not None and progress.stage not in ("lookup", "queue"):
                # it lies on that machine's disk, encoded, or is being rendered because it does not
                node = worker.node if progress.stage == "upload" else None
                attempt = replace(attempt, node=node)  # noqa: PLW2901 the same attempt, better known
            if clip_id not in charged:
                num_bystander_losses = attempt.num_bystander_losses + (clip_id in bystanders)
                self._waiting.append(
                    replace(
                        attempt,
                        number=attempt.number + 1,
                        num_bystander_losses=num_bystander_losses,
                    )
                )
                continue
            attempt = replace(attempt, lost=(*attempt.lost, *worker_at(number, worker)))  # noqa: PLW2901
            failed = ClipFailed(
                clip_id=clip_id,
                name=attempt.spec.name,
                attempt=attempt.number,
                failure_class=failure_class,
                may_pass_on_retry=True,
                error_type="WorkerStalledError" if failure_class == "stall" else "WorkerLostError",
                message=message,
                traceback="",
                worker=worker.label,
            )
            yield from self._fail(attempt, failed)

    # clips

    def _end(self, number: WorkerId, outcome: ClipDone | ClipFailed) -> Iterator[Command]:
        worker = self._pool.workers[number]
        worker.heard_at = self._now
        attempt = worker.attempts.pop(outcome.clip_id, None)
        if attempt is None:
            return
        if isinstance(outcome, ClipDone):
            self._take_done(worker, attempt, outcome)
            return
        attempt = replace(attempt, node=worker.node if outcome.is_spooled else None)
        if outcome.failure_class == "store" and outcome.may_pass_on_retry:
            yield from self._pause(worker, outcome.message)
        if outcome.failure_class == "worker":
            attempt = replace(attempt, lost=(*attempt.lost, *worker_at(number, worker)))
        yield from self._fail(attempt, outcome)
        if outcome.failure_class in ("request", "store"):
            return
        worker.num_failures_in_a_row += 1
        if outcome.failure_class in REPLACED_AFTER:
            worker.is_spent = outcome.failure_class == "memory"
            yield from self._lose(number, REPLACED_AFTER[outcome.failure_class], ())
        elif worker.num_failures_in_a_row >= self._config.retry.max_failures_of_worker:
            self._blame.set_aside(number, worker.nodes)
            worker.is_spent = True
            yield from self._lose(
                number, f"set aside after {worker.num_failures_in_a_row} failures in a row", ()
            )

    def _take_done(self, worker: PooledWorker, attempt: Attempt, done: ClipDone) -> None:
        self._num_done += 1
        worker.num_done += 1
        worker.num_failures_in_a_row = 0
        worker.paused_until = worker.back_off_s = 0.0
        self._outage.end_if_before(self._now)
        self._deadlines.learn(attempt, done.timings)
        if any(timing.stage == "denoise" for timing in done.timings):
            worker.kinds_done.add(kind(attempt))
        self._blame.done(attempt, worker.nodes)
        worker.consider_recycling(self._config.workers, done.memory_bytes)

    def _pause(self, worker: PooledWorker, message: str) -> Iterator[Command]:
        """Backs off from a store that takes nothing from this worker for now."""
        if worker.paused_until <= self._now:
            worker.back_off_s = self._outage.longer(worker.back_off_s)
            worker.paused_until = self._now + worker.back_off_s
        yield from self._note_trouble(message)

    def _note_trouble(self, message: str) -> Iterator[Command]:
        """Ends the run after too long, but not while a clip is being rendered, which will lie on a disk then."""
        error = self._outage.note(self._now, message)
        is_rendering = any(
            clip_id in worker.progress and worker.progress[clip_id].stage in COMPUTING
            for worker in self._pool.workers.values()
            for clip_id in worker.attempts
        )
        if error is not None and not is_rendering:
            yield Halt(error)

    def _fail(self, attempt: Attempt, failed: ClipFailed) -> Iterator[Command]:
        failures = (*attempt.failures, failed)
        decision = decide(failures, self._config.retry)
        yield ReportFailure(failed, decision)
        match decision:
            case Retry(number, uses_exact_attention):
                self._waiting.append(
                    replace(
                        attempt,
                        number=number,
                        failures=failures,
                        uses_exact_attention=uses_exact_attention,
                    )
                )
            case Wait(number):
                self._waiting.append(replace(attempt, number=number))
            case Quarantine():
                self._num_quarantined += 1
                yield from self._check_quarantined()
            case Stop(reason):
                yield Halt(StoreRefusedError(reason))

    def _check_quarantined(self) -> Iterator[Command]:
        """Stops a run that loses more than it renders, once there are enough clips to tell."""
        num_ended, limits = self._num_done + self._num_quarantined, self._config.retry
        is_share = (
            num_ended >= limits.min_clips_to_stop
            and self._num_quarantined > limits.max_quarantined_share * num_ended
        )
        is_count = (
            limits.max_quarantined is not None and self._num_quarantined > limits.max_quarantined
        )
        if (is_share or is_count) and not self.is_finished:
            message = f"{self._num_quarantined} of the first {num_ended} clips were given up; their failures say why"
            yield Halt(TooManyFailuresError(message))


def worker_at(number: WorkerId, worker: PooledWorker) -> list[tuple[WorkerId, str]]:
    """A worker with each of the machines that it lies on."""
    return [(number, node) for node in sorted(worker.nodes)]
