"""The clips of a run: the queue, the decisions about failed attempts, and the end of the plan.

The clip half of the schedule. Knows workers only as slots for clips. Loads without torch.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from jobs.errors import StoreRefusedError, TooManyFailuresError
from jobs.schedule import events as ev
from jobs.schedule.events import Attempt, Command, WorkerId
from jobs.schedule.pool import Pool
from jobs.schedule.pooled_worker import LoadedWorker, Loss
from jobs.schedule.retry import Quarantine, Retry, Stop, Wait, decide
from jobs.schedule.run_deadline import RunDeadline
from jobs.schedule.slots import Slots
from jobs.settings.run_config import RetryPolicy
from jobs.types import ClipFailed


class Clips:
    """The clips that wait for a worker, and the counts of those that have ended.

    Args:
        pool: workers that render the clips.
        run_deadline: decides which clips can still end.
    """

    def __init__(self, policy: RetryPolicy, pool: Pool, run_deadline: RunDeadline) -> None:
        self._policy = policy
        self._run_deadline = run_deadline
        self._pool = pool
        self._waiting: deque[Attempt] = deque()
        self._spooled_on: dict[str, str] = {}  # node, by clip_id, of clips still to come
        self._is_taking = False  # `TakeClip` is not answered yet
        self._is_plan_waiting = False  # its answer was `PlanWaits`
        self._is_plan_over = False
        self._num_done = 0
        self._num_quarantined = 0

    @property
    def is_finished(self) -> bool:
        """Return True if nothing is left to start and nothing is in flight."""
        return self._is_plan_over and not (self._waiting or self._pool.is_busy)

    @property
    def is_plan_over(self) -> bool:
        """Return True if the plan has no further clip."""
        return self._is_plan_over

    @property
    def num_useful_workers(self) -> int:
        """Return the number of workers that the last clips can use, at the plan's end."""
        return len(self._waiting) + self._pool.num_useful

    @property
    def nodes_in_use(self) -> set[str]:
        """Return the nodes that hold an encoded clip which waits for a worker."""
        return {attempt.node for attempt in self._waiting if attempt.node is not None}

    @property
    def num_done(self) -> int:
        return self._num_done

    def planned(self, event: ev.Planned, _now: float) -> list[Command]:
        """Put the plan's next clip into the queue."""
        self._is_taking = False
        self._is_plan_over = event.spec is None
        if event.spec is not None:
            node = self._spooled_on.pop(event.spec.clip_id, None)
            self._waiting.append(Attempt(event.spec, node=node))
        return []

    def plan_waits(self, _event: ev.PlanWaits, _now: float) -> list[Command]:
        """Take no clip from the plan until some time has passed."""
        self._is_plan_waiting = True
        return []

    def pass_time(self) -> None:
        """Ask a plan again whose next clip was not ready."""
        if self._is_plan_waiting:
            self._is_plan_waiting = self._is_taking = False

    def end_plan(self) -> None:
        """Take no further clip, since each would end after the deadline of the run."""
        self._is_plan_over = True

    def learn_spool(self, node: str, spooled: frozenset[str]) -> None:
        """Note the clips that wait encoded on a node's disk, both in the queue and still to come.

        Args:
            spooled: their ids.
        """
        self._spooled_on |= dict.fromkeys(spooled, node)
        for index, attempt in enumerate(self._waiting):
            if attempt.spec.clip_id in spooled and attempt.node is None:
                self._waiting[index] = replace(attempt, node=node)

    def assign(self, now: float, num_wanted: int) -> list[Command]:
        """Give waiting clips to open workers, and take one from the plan if there is still room.

        At the end of the plan, recall clips from busy workers for those that have none.

        Args:
            num_wanted: number of workers that the pool should have.
        """
        commands: list[Command] = []
        if self._run_deadline.is_set:
            self._waiting = deque(
                one for one in self._waiting if self._run_deadline.can_end(one, now)
            )
        while True:
            slots = Slots(self._pool, now, num_wanted)
            reserved = slots.reserved_for_suspects(self._waiting)
            start = self._start_next(slots, reserved, now)
            if start is None:
                break
            commands.append(start)
        if self._is_plan_over:
            return commands + self._recall(slots.recalls())
        # retried clips that find no worker do not hold up the plan; those that find one and would
        # end too late behind its clips do
        if self._run_deadline.is_set and any(
            slots.choose(one, reserved) is not None for one in self._waiting
        ):
            return commands
        if slots.has_room(reserved) and not self._is_taking:
            self._is_taking = True
            commands.append(ev.TakeClip())
        return commands

    def _recall(self, recalls: Sequence[tuple[WorkerId, str]]) -> list[Command]:
        for number, clip_id in recalls:
            self._pool.change(number).recalled.add(clip_id)
        return [ev.RecallClip(number, clip_id) for number, clip_id in recalls]

    def recall_late(self, now: float) -> list[Command]:
        """Recall queued clips that would end after the deadline of the run."""
        late = [
            (number, clip_id)
            for number, worker in sorted(self._pool.loaded.items())
            for clip_id in self._run_deadline.late(worker, now)
        ]
        return self._recall(late)

    def returned(self, event: ev.ClipReturned, _now: float) -> list[Command]:
        """Queue a recalled clip again; the attempt has not begun, so it keeps its number."""
        worker = self._pool.find_loaded(event.worker)
        attempt = worker.pop(event.clip_id) if worker is not None else None
        if attempt is not None:
            self._waiting.appendleft(attempt)
        return []

    def _start_next(self, slots: Slots, reserved: set[int], now: float) -> ev.StartClip | None:
        for index, attempt in enumerate(self._waiting):
            number = slots.choose(attempt, reserved)
            if number is not None and self._run_deadline.can_end_on(
                self._pool.loaded[number], attempt, now
            ):
                del self._waiting[index]
                self._pool.change(number).take(attempt, now)
                return ev.StartClip(number, attempt)
        return None

    def record_done(self) -> None:
        self._num_done += 1

    def fail(self, attempt: Attempt, failed: ClipFailed) -> list[Command]:
        """Charge an attempt's failure to its clip; halt the run at too many quarantines."""
        num_before = self._num_quarantined
        commands = self._charge(attempt, failed)
        return commands + self._check_quarantined(num_before)

    def _charge(self, attempt: Attempt, failed: ClipFailed) -> list[Command]:
        """Charge an attempt's failure to its clip, and do as `decide` says."""
        failures = (*attempt.failures, failed)
        decision = decide(failures, self._policy)
        commands: list[Command] = [ev.ReportFailure(failed, decision)]
        match decision:
            case Retry(number, exact):
                attempt = replace(attempt, number=number, failures=failures)
                self._waiting.append(replace(attempt, uses_exact_attention=exact))
            case Wait(number):
                self._waiting.append(replace(attempt, number=number))
            case Quarantine():
                self._num_quarantined += 1
            case Stop(reason):
                commands.append(ev.Halt(StoreRefusedError(reason)))
        return commands

    def _check_quarantined(self, num_before: int) -> list[Command]:
        """Halt a run that has just quarantined more than is allowed, if enough clips have ended.

        Args:
            num_before: number of quarantined clips before the event.
        """
        num_quarantined, limits = self._num_quarantined, self._policy
        num_ended = self._num_done + num_quarantined
        if num_quarantined == num_before or self.is_finished:
            return []
        if limits.max_quarantined is not None and num_quarantined > limits.max_quarantined:
            allowed = f"retry.max_quarantined allows {limits.max_quarantined}"
        elif (
            num_ended >= limits.min_clips_to_stop
            and num_quarantined > limits.max_quarantined_share * num_ended
        ):
            allowed = f"retry.max_quarantined_share allows {limits.max_quarantined_share:.0%}"
        else:
            return []
        message = (
            f"{num_quarantined} of the first {num_ended} clips were quarantined, {allowed}; "
            "nagfarm status shows why: remove the cause, or raise the limit"
        )
        return [ev.Halt(TooManyFailuresError(message))]

    def take_back(self, worker: LoadedWorker, loss: Loss) -> list[Command]:
        """Take back the clips of a lost worker; those charged with its loss fail, others go on.

        The quarantines are checked last: before, clips that are still to be queued again are in
        neither the queue nor the pool, and the run looks finished.
        """
        commands: list[Command] = []
        num_before = self._num_quarantined
        for clip_id, in_flight in worker.attempts.items():
            attempt = locate(in_flight, worker)
            if clip_id in loss.attributed:
                failed = failure_of(attempt, worker, loss)
                commands += self._charge(worker.charge(attempt), failed)
            else:
                self._requeue(attempt, is_bystander=clip_id in loss.bystanders)
        return commands + self._check_quarantined(num_before)

    def _requeue(self, attempt: Attempt, *, is_bystander: bool) -> None:
        """Queue an attempt once more without charging its clip."""
        num_bystander_losses = attempt.num_bystander_losses + is_bystander
        self._waiting.append(
            replace(attempt, number=attempt.number + 1, num_bystander_losses=num_bystander_losses)
        )


def locate(attempt: Attempt, worker: LoadedWorker) -> Attempt:
    """Update the node that holds the encoded clip, by the worker's last heartbeat.

    A clip in upload lies on the worker's node. One that is being rendered lies on none.
    """
    progress = worker.progress.get(attempt.spec.clip_id)
    if progress is None or progress.stage in ("lookup", "queue"):
        return attempt
    return replace(attempt, node=worker.node if progress.stage == "upload" else None)


def failure_of(attempt: Attempt, worker: LoadedWorker, loss: Loss) -> ClipFailed:
    """Return the failure of a clip that is charged with the loss of its worker."""
    is_stall = loss.failure_class == "stall"
    return ClipFailed(
        clip_id=attempt.spec.clip_id,
        name=attempt.spec.name,
        model=attempt.spec.model.name,
        request=attempt.spec.request,
        attempt=attempt.number,
        failure_class=loss.failure_class,
        may_pass_on_retry=True,
        error_type="WorkerStalledError" if is_stall else "WorkerLostError",
        message=loss.message,
        traceback="",
        worker=worker.label,
    )
