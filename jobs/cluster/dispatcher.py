"""The dispatch loop: it carries out a schedule's commands on Ray and returns the events to it.

A thin loop around `Answers`. The schedule decides what is to be done, and a worker how a clip is
rendered. The loop takes a clip from the plan only when a worker has room for it, so a million clips
need no memory. An answer costs the same with any number of workers; all that grows with them is
done once a turn.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush

from jobs.cluster.answers import Answer, Answers
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.launcher import launcher_for
from jobs.cluster.observer import Observer
from jobs.cluster.ray_errors import is_preempted, load_failure, loss_reason
from jobs.cluster.worker_states import GoneWorker, LoadingWorker, RunningWorker, WorkerState
from jobs.config import RunConfig
from jobs.errors import ClusterLostError
from jobs.plan.demand import Demand
from jobs.redaction import redact
from jobs.schedule import events as ev
from jobs.schedule.schedule import Schedule
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

WAIT_S = 0.5  # the longest turn of the loop, in which no answer comes
TURN_S = 0.1  # the rest of a turn after its first answer
SETTLE_S = 5.0  # for a place that is free, and for a process that ends and leaves its place


class Dispatcher:
    """Renders the clips of one model on a pool of workers, single actors or groups.

    Args:
        setup: the setup of each worker.
        config: the settings of the run.
        demand: the workers that the run wants.
        observer: receives the events.
        look: returns the latest view of the cluster, without waiting for it.
    """

    def __init__(
        self,
        setup: WorkerSetup,
        config: RunConfig,
        demand: Demand,
        observer: Observer,
        look: Callable[[], ClusterView],
    ) -> None:
        self._setup = setup
        self._config = config
        self._demand = demand
        self._launcher = launcher_for(setup, config, demand.reserved.num_gpus)
        self._observer = observer
        self._schedule = Schedule(config, demand.num_wanted(look().machines()))
        self._workers: dict[ev.WorkerId, WorkerState] = {}
        self._answers = Answers()
        self._heartbeats_due: list[tuple[float, ev.WorkerId]] = []  # a heap
        self._stop_reason: str | None = None
        self._look = look

    def request_stop(self, reason: str) -> None:
        """End the run soon; clips in flight have `workers.drain_s` to finish.

        Safe in a signal handler: it takes no lock, which the interrupted thread may hold.
        """
        self._stop_reason = reason

    def run(self, specs: Iterator[ClipSpec]) -> None:
        """Render all clips; return when none is left to start and none is in flight.

        Raises:
            NoWorkersError: no worker can load the model.
            StoreRefusedError: the store takes no more clips.
            StoreUnavailableError: the store has taken no clip for too long.
            TooManyFailuresError: too large a share of the clips was quarantined.
            StoppedError: `request_stop` was called.
        """
        try:
            self._carry_out(self._schedule.start(time.monotonic()), specs)
            while not self._schedule.is_finished:
                for event in self._turn():
                    self._carry_out(self._schedule.handle(event, time.monotonic()), specs)
                self._observer.workers_waiting(self._waiting())
                self._observer.workers_loading(self._loading())
                self._observer.tick()
        except ClusterLostError:
            raise  # a call to stop a worker would wait for the cluster
        except BaseException:
            self._stop_all()
            raise
        self._stop_all()

    def _stop_all(self) -> None:
        for state in self._workers.values():
            self._launcher.stop(state.handle, may_return=False)
        self._launcher.close()

    def _carry_out(self, commands: list[ev.Command], specs: Iterator[ClipSpec]) -> None:
        """Carry out the commands, and those that follow from them at once."""
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            match command:
                case ev.StartWorker(worker, cordoned):
                    self._start_worker(worker, cordoned)
                case ev.StopWorker(worker, message, is_lost, may_return):
                    self._stop_worker(worker, message, is_lost=is_lost, may_return=may_return)
                case ev.TakeClip():
                    planned = ev.Planned(next(specs, None))
                    waiting.extend(self._schedule.handle(planned, time.monotonic()))
                case ev.StartClip(worker, attempt):
                    self._start_clip(worker, attempt)
                case ev.RecallClip(worker, clip_id):
                    self._workers[worker].handle.actor.recall.remote(clip_id)
                case ev.ReportFailure(failed, decision):
                    self._observer.clip_failed(failed, decision)
                case ev.Halt(error):
                    raise error

    def _start_worker(self, worker: ev.WorkerId, cordoned: frozenset[str]) -> None:
        handle = self._launcher.start(cordoned)
        self._workers[worker] = LoadingWorker(handle, time.monotonic(), cordoned)
        self._answers.expect(worker, "placed", handle.placed)
        self._answers.expect(worker, "loaded", handle.load)

    def _stop_worker(
        self, worker: ev.WorkerId, message: str, *, is_lost: bool, may_return: bool
    ) -> None:
        state = self._workers.pop(worker)
        is_gone = isinstance(state, GoneWorker)
        self._launcher.stop(state.handle, may_return=may_return and not is_gone)
        is_ready = not isinstance(state, LoadingWorker)
        self._observer.worker_stopped(state.label, message, is_ready=is_ready, is_lost=is_lost)

    def _start_clip(self, worker: ev.WorkerId, attempt: ev.Attempt) -> None:
        state = self._workers[worker]
        # The loss of a gone worker is the schedule's next event and fails this clip too.
        if isinstance(state, RunningWorker):
            reference = state.handle.actor.render.remote(
                attempt.spec, attempt.number, attempt.uses_exact_attention
            )
            self._answers.expect(worker, "clip", reference)
        self._observer.clip_started(state.label, attempt)

    def _turn(self) -> Iterator[ev.Event]:
        """Yield the events of at most `WAIT_S` seconds as they come, a `Tick` last."""
        self._ask_for_heartbeats()
        end_s = time.monotonic() + WAIT_S
        while not self._schedule.is_finished and (left_s := end_s - time.monotonic()) > 0:
            if answers := self._answers.wait(left_s):
                end_s = min(end_s, time.monotonic() + TURN_S)
                yield from self._events(answers)
        if self._stop_reason is not None:
            yield ev.StopRequested(self._stop_reason)
        view = self._look()
        yield ev.NodesDraining(view.draining)
        if view.nodes:  # without a node, the watch on the cluster ends the run
            machines = view.machines()
            yield ev.RoomSeen(self._demand.num_wanted(machines), self._demand.lacking(machines))
        yield ev.Tick()

    def _waiting(self) -> str | None:
        """Return the devices for which workers wait, and who has them; None if no worker waits."""
        latest_s = time.monotonic() - SETTLE_S
        waiting = [
            state
            for state in self._workers.values()
            if isinstance(state, LoadingWorker)
            and not state.is_placed
            and state.asked_s <= latest_s
        ]
        if not waiting:
            return None
        cordoned = frozenset[str]().union(*(state.cordoned for state in waiting))
        # one that was asked for just now is to take the place of a worker that has just ended
        num_placed = len(self._workers) - len(waiting)
        return self._demand.waiting(len(waiting), num_placed, self._look().machines(cordoned))

    def _loading(self) -> list[LoadPosition]:
        """Return the positions of the workers that load."""
        return [
            state.position
            for state in self._workers.values()
            if isinstance(state, LoadingWorker) and state.is_placed
        ]

    def _ask_for_heartbeats(self) -> None:
        now = time.monotonic()
        while self._heartbeats_due and self._heartbeats_due[0][0] <= now:
            _, worker = heappop(self._heartbeats_due)
            state = self._workers.get(worker)
            if isinstance(state, LoadingWorker | RunningWorker):
                state.heartbeat_asked_s = now
                self._answers.expect(worker, "heartbeat", state.handle.actor.heartbeat.remote())

    def _events(self, answers: Iterable[Answer]) -> Iterator[ev.Event]:
        """Yield the events of answers that came together.

        Losses come last, so that clips that ended before their worker died are not attributed to
        it.
        """
        lost: list[ev.WorkerLost] = []
        for answer in answers:
            state = self._workers.get(answer.worker)  # an earlier event may have stopped it
            match state:
                case LoadingWorker():
                    event = self._loaded(state, answer)
                case RunningWorker():
                    event = self._answered(state, answer)
                case _:
                    continue
            if isinstance(event, ev.WorkerLost):
                lost.append(event)
            elif event is not None:
                yield event
        yield from lost

    def _loaded(self, state: LoadingWorker, answer: Answer) -> ev.Event | None:
        """Return the event of a worker that has its devices, or that has loaded or cannot."""
        worker = answer.worker
        if answer.call == "placed":
            state.is_placed = True
            heappush(self._heartbeats_due, (time.monotonic(), worker))
            return ev.WorkerPlaced(worker)
        if answer.call == "heartbeat":
            if isinstance(answer.value, WorkerHeartbeat):  # else the answer of `load` says why
                state.position = answer.value.load
            self._plan_heartbeat(state, worker)
            return None
        if answer.error is not None:
            return load_failure(worker, self._setup.model.name, answer.error)
        loaded: LoadedWorker = answer.value
        state.handle.nodes = loaded.nodes
        self._workers[worker] = RunningWorker(state.handle, loaded.label, state.heartbeat_asked_s)
        if not state.is_placed:  # Ray's word comes after the worker's own
            heappush(self._heartbeats_due, (time.monotonic(), worker))
        node = loaded.identity.node_id
        self._observer.worker_ready(loaded.label, loaded.identity.device)
        return ev.WorkerReady(worker, loaded.label, node, loaded.spooled, loaded.nodes - {node})

    def _answered(self, state: RunningWorker, answer: Answer) -> ev.Event | None:
        """Return the event of a `heartbeat` call or of a `render` call that has an answer."""
        worker, error = answer.worker, answer.error
        if answer.call == "placed":  # Ray's word came after the worker's own
            return None
        # The process died, or broke: a clip's own failure comes back as a value.
        if error is not None:
            self._workers[worker] = GoneWorker(state.handle, state.label)
            return ev.WorkerLost(worker, loss_reason(error), is_preempted=is_preempted(error))
        if answer.call == "heartbeat":
            self._plan_heartbeat(state, worker)
        return self._event_of(worker, answer.value)

    def _plan_heartbeat(self, state: LoadingWorker | RunningWorker, worker: ev.WorkerId) -> None:
        due_s = state.heartbeat_asked_s + self._config.stall.heartbeat_interval_s
        heappush(self._heartbeats_due, (due_s, worker))

    def _event_of(
        self, worker: ev.WorkerId, answer: WorkerHeartbeat | ClipOutcome | LostRank
    ) -> ev.Event:
        match answer:
            case LostRank(message, is_rank_preempted):
                return ev.WorkerLost(worker, redact(message), is_preempted=is_rank_preempted)
            case WorkerHeartbeat():
                self._observer.worker_heartbeat(answer)
                return ev.HeartbeatReceived(worker, answer)
            case ClipDone():
                self._observer.clip_done(answer)
                return ev.ClipEnded(worker, answer)
            case ClipFailed():
                return ev.ClipEnded(worker, answer)
            case ClipReturned(clip_id):
                self._observer.clip_returned(clip_id)
                return ev.ClipReturned(worker, clip_id)
