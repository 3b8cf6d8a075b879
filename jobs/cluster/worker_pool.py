"""The workers of one kind on Ray: it carries out a schedule's commands and makes its events.

Decides nothing: the schedule decides what is to be done, and a worker how a clip is rendered. Takes
a clip from the plan only when a worker has room for it, so a million clips need no memory.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

from jobs.cluster.answers import Answer, Answers, Call
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.launcher import launcher_for
from jobs.cluster.observer import Observer
from jobs.cluster.ray_errors import is_preempted, load_failure, loss_reason
from jobs.cluster.worker_states import (
    GoneWorker,
    LoadingWorker,
    RunningWorker,
    WorkerState,
    count_states,
)
from jobs.costs.device_ledger import DevicesFreed, DevicesHeld, DevicesReady
from jobs.metrics.run_metrics import WorkerCounts
from jobs.plan.demand import Demand
from jobs.plan.worker_kinds import WorkerKind
from jobs.redaction import redact
from jobs.schedule import events as ev
from jobs.schedule.pace import Pace
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share, left_by
from jobs.settings.run_config import RunConfig
from jobs.types import (
    ClipDone,
    ClipFailed,
    ClipOutcome,
    ClipReturned,
    ClipSpec,
    LostRank,
    WorkerHeartbeat,
)
from jobs.worker.setup import LoadedWorker, WorkerSetup
from pipelines.load_progress import LoadPosition

SETTLE_S = 5.0  # for a place that is free, and for a process that ends and leaves its place


@dataclass(frozen=True, eq=False)
class PoolPlan:
    """The clips of one kind of worker that a run is to render.

    Args:
        setup: the setup of each worker.
        demand: returns the workers that the run wants in the cluster as it is.
        specs: the clips; None in the place of one that is not ready yet.
        pace: expected times of the clips, in a run that has a deadline.
        has_clips: returns False if each clip that is left would end after the run's deadline.
    """

    setup: WorkerSetup
    demand: Callable[[ClusterView], Demand]
    specs: Iterator[ClipSpec | None]
    pace: Pace | None = None
    has_clips: Callable[[], bool] = lambda: True


class WorkerPool:
    """Workers of one kind, single actors or groups, with their schedule.

    Args:
        number: number of the pool in the run.
        share: the schedule, and the workers that the run wants.
        config: the settings of the run.
        observer: receives the events.
        answers: gets the answers of the workers.
    """

    def __init__(
        self,
        number: int,
        plan: PoolPlan,
        share: Share,
        config: RunConfig,
        observer: Observer,
        answers: Answers,
    ) -> None:
        self.number = number
        self.kind = WorkerKind(plan.setup.model.name, plan.setup.parallel)
        self.share = share
        self.workers: dict[ev.WorkerId, WorkerState] = {}
        self.has_clips = plan.has_clips
        self._specs = plan.specs
        self._config = config
        self._launcher = launcher_for(plan.setup, config, share.demand.reserved)
        self._observer = observer
        self._answers = answers
        self._heartbeats_due: list[tuple[float, ev.WorkerId]] = []  # a heap

    @property
    def schedule(self) -> Schedule:
        return self.share.schedule

    def start(self) -> None:
        """Begin, before any event.

        Raises:
            JobError: the schedule halts.
        """
        self._carry_out(self.schedule.start(time.monotonic()))

    def handle(self, event: ev.Event) -> None:
        """Let the schedule answer an event, and carry out its commands.

        Raises:
            JobError: the schedule halts.
        """
        self._carry_out(self.schedule.handle(event, time.monotonic()))

    def stop_all(self) -> None:
        """End all workers."""
        for state in self.workers.values():
            self._launcher.stop(state.handle, may_return=False)
        self._launcher.close()

    def release_all(self) -> None:
        """End all workers of a kind whose clips have ended, while other kinds go on."""
        for worker in list(self.workers):
            self._release(worker)
        self._launcher.close()

    def _carry_out(self, commands: list[ev.Command]) -> None:
        """Carry out the commands, and those that follow from them at once."""
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            match command:
                case ev.StartWorker(worker, cordoned):
                    self._start_worker(worker, cordoned)
                case ev.StopWorker(worker, message, is_lost, may_return):
                    self._stop_worker(worker, message, is_lost=is_lost, may_return=may_return)
                case ev.ReleaseWorker(worker, message):
                    self._release(worker, message)
                    self._launcher.close()  # parts that are kept for a next worker hold devices
                case ev.TakeClip():
                    waiting.extend(self.schedule.handle(self._take_clip(), time.monotonic()))
                case ev.StartClip(worker, attempt):
                    self._start_clip(worker, attempt)
                case ev.RecallClip(worker, clip_id):
                    self.workers[worker].handle.actor.recall.remote(clip_id)
                case ev.ReportFailure(failed, decision):
                    self._observer.clip_failed(failed, decision)
                case ev.Halt(error):
                    raise error

    def _take_clip(self) -> ev.Planned | ev.PlanWaits:
        for spec in self._specs:
            return ev.PlanWaits() if spec is None else ev.Planned(spec)
        return ev.Planned(None)

    def _start_worker(self, worker: ev.WorkerId, cordoned: frozenset[str]) -> None:
        handle = self._launcher.start(cordoned)
        self.workers[worker] = LoadingWorker(handle, time.monotonic(), cordoned)
        self._expect(worker, "placed", handle.placed)
        self._expect(worker, "loaded", handle.load)

    def _stop_worker(
        self, worker: ev.WorkerId, message: str, *, is_lost: bool, may_return: bool
    ) -> None:
        state = self.workers.pop(worker)
        is_gone = isinstance(state, GoneWorker)
        self._launcher.stop(state.handle, may_return=may_return and not is_gone)
        is_ready = not isinstance(state, LoadingWorker)
        self._observer.worker_stopped(state.label, message, is_ready=is_ready, is_lost=is_lost)
        self._observer.devices_changed(DevicesFreed((self.number, worker), is_lost))

    def _release(self, worker: ev.WorkerId, message: str = "") -> None:
        state = self.workers.pop(worker)
        self._launcher.stop(state.handle, may_return=False)
        is_ready = not isinstance(state, LoadingWorker)
        self._observer.worker_released(state.label, message, is_ready=is_ready)
        self._observer.devices_changed(DevicesFreed((self.number, worker), is_lost=False))

    def _start_clip(self, worker: ev.WorkerId, attempt: ev.Attempt) -> None:
        state = self.workers[worker]
        # The loss of a gone worker is the schedule's next event and fails this clip too.
        if isinstance(state, RunningWorker):
            reference = state.handle.actor.render.remote(
                attempt.spec, attempt.number, attempt.uses_exact_attention
            )
            self._expect(worker, "clip", reference)
        self._observer.clip_started(state.label, attempt)

    def waiting(self, view: ClusterView, others: Sequence[Share]) -> str | None:
        """Return the devices for which workers wait, and who has them; None if no worker waits.

        Args:
            others: shares of the other kinds of the run.
        """
        latest_s = time.monotonic() - SETTLE_S
        waiting = [
            state
            for state in self.workers.values()
            if isinstance(state, LoadingWorker)
            and not state.is_placed
            and state.asked_s <= latest_s
        ]
        if not waiting:
            return None
        cordoned = frozenset[str]().union(*(state.cordoned for state in waiting))
        # one that was asked for just now is to take the place of a worker that has just ended
        num_placed = len(self.workers) - len(waiting)
        machines = view.machines(cordoned)
        left = left_by(others, machines)
        return self.share.demand.waiting(len(waiting), num_placed, machines, left)

    def counts(self) -> WorkerCounts:
        """Return the numbers of workers that wait, load and render."""
        return WorkerCounts(self.kind.model, *count_states(self.workers.values()))

    def loading(self) -> list[LoadPosition]:
        """Return the positions of the workers that load."""
        return [
            state.position
            for state in self.workers.values()
            if isinstance(state, LoadingWorker) and state.is_placed
        ]

    def ask_for_heartbeats(self) -> None:
        """Call `heartbeat` on the workers whose next one is due."""
        now = time.monotonic()
        while self._heartbeats_due and self._heartbeats_due[0][0] <= now:
            _, worker = heappop(self._heartbeats_due)
            state = self.workers.get(worker)
            if isinstance(state, LoadingWorker | RunningWorker):
                state.heartbeat_asked_s = now
                self._expect(worker, "heartbeat", state.handle.actor.heartbeat.remote())

    def event_of(self, answer: Answer) -> ev.Event | None:
        """Return the event of an answer; None if it tells nothing, or its worker has stopped."""
        match state := self.workers.get(answer.worker):
            case LoadingWorker():
                return self._loaded(state, answer)
            case RunningWorker():
                return self._answered(state, answer)
            case GoneWorker() if answer.error is None and answer.call in ("clip", "heartbeat"):
                return self._event_of(state.label, answer)  # given before it died
            case _:
                return None

    def _expect(self, worker: ev.WorkerId, call: Call, reference: Any) -> None:
        self._answers.expect(self.number, worker, call, reference)

    def _loaded(self, state: LoadingWorker, answer: Answer) -> ev.Event | None:
        """Return the event of a worker that has its devices, or that has loaded or cannot."""
        worker = answer.worker
        if answer.call == "placed":
            self._place(state, worker)
            return ev.WorkerPlaced(worker)
        if answer.call == "heartbeat":
            if isinstance(answer.value, WorkerHeartbeat):  # else the answer of `load` says why
                state.position = answer.value.load
            self._plan_heartbeat(state, worker)
            return None
        if answer.error is not None:
            return load_failure(worker, self.kind.model, answer.error)
        loaded: LoadedWorker = answer.value
        state.handle.nodes = loaded.nodes
        self.workers[worker] = RunningWorker(state.handle, loaded.label, state.heartbeat_asked_s)
        if not state.is_placed:  # Ray's word comes after the worker's own
            self._place(state, worker)
        node, device = loaded.identity.node_id, loaded.identity.device
        self._observer.devices_changed(DevicesReady((self.number, worker), loaded.label, device))
        self._observer.worker_ready(loaded.label, loaded.identity, loaded.warning)
        return ev.WorkerReady(worker, loaded.label, node, loaded.spooled, loaded.nodes - {node})

    def _place(self, state: LoadingWorker, worker: ev.WorkerId) -> None:
        """Note that a worker has its devices; ask it for heartbeats from now on."""
        state.is_placed = True
        heappush(self._heartbeats_due, (time.monotonic(), worker))
        num_devices = self.kind.parallel.degree * (self.share.demand.reserved.num_gpus or 1)
        held = DevicesHeld((self.number, worker), self.kind.model, num_devices)
        self._observer.devices_changed(held)

    def _answered(self, state: RunningWorker, answer: Answer) -> ev.Event | None:
        """Return the event of a `heartbeat` call or of a `render` call that has an answer."""
        worker, error = answer.worker, answer.error
        if answer.call == "placed":  # Ray's word came after the worker's own
            return None
        # The process died, or broke: a clip's own failure comes back as a value.
        if error is not None:
            self.workers[worker] = GoneWorker(state.handle, state.label)
            return ev.WorkerLost(worker, loss_reason(error), is_preempted=is_preempted(error))
        if answer.call == "heartbeat":
            self._plan_heartbeat(state, worker)
        return self._event_of(state.label, answer)

    def _plan_heartbeat(self, state: LoadingWorker | RunningWorker, worker: ev.WorkerId) -> None:
        due_s = state.heartbeat_asked_s + self._config.stall.heartbeat_interval_s
        heappush(self._heartbeats_due, (due_s, worker))

    def _event_of(self, label: str, answer: Answer) -> ev.Event:
        worker = answer.worker
        value: WorkerHeartbeat | ClipOutcome | LostRank = answer.value
        match value:
            case LostRank(message, is_rank_preempted):
                return ev.WorkerLost(worker, redact(message), is_preempted=is_rank_preempted)
            case WorkerHeartbeat():
                self._observer.worker_heartbeat(label, value)
                return ev.HeartbeatReceived(worker, value)
            case ClipDone():
                self._observer.clip_done(value)
                return ev.ClipEnded(worker, value)
            case ClipFailed():
                return ev.ClipEnded(worker, value)
            case ClipReturned(clip_id):
                self._observer.clip_returned(clip_id)
                return ev.ClipReturned(worker, clip_id)
