"""The dispatch loop: it carries out a schedule's commands on Ray and returns the events to it.

A thin loop around `ray.wait`. The schedule decides what is to be done, and a worker how a clip is
rendered. The loop takes a clip from the plan only when a worker has room for it, so a million clips
need no memory.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import ray
import ray.exceptions

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

WAIT_S = 0.5  # the longest pause between two turns of the loop
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
        self._stop_reason: str | None = None
        self._pause = threading.Event()  # never set
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
                for event in self._wait():
                    self._carry_out(self._schedule.handle(event, time.monotonic()), specs)
                self._observer.workers_waiting(self._waiting())
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
                    self._workers[worker] = LoadingWorker(
                        self._launcher.start(cordoned), time.monotonic(), cordoned
                    )
                case ev.StopWorker(worker, message, is_lost, may_return):
                    self._stop_worker(worker, message, is_lost=is_lost, may_return=may_return)
                case ev.TakeClip():
                    planned = ev.Planned(next(specs, None))
                    waiting.extend(self._schedule.handle(planned, time.monotonic()))
                case ev.StartClip(worker, attempt):
                    self._start_clip(self._workers[worker], attempt)
                case ev.RecallClip(worker, clip_id):
                    self._workers[worker].handle.actor.recall.remote(clip_id)
                case ev.ReportFailure(failed, decision):
                    self._observer.clip_failed(failed, decision)
                case ev.Halt(error):
                    raise error

    def _stop_worker(
        self, worker: ev.WorkerId, message: str, *, is_lost: bool, may_return: bool
    ) -> None:
        state = self._workers.pop(worker)
        is_gone = isinstance(state, GoneWorker)
        self._launcher.stop(state.handle, may_return=may_return and not is_gone)
        is_ready = not isinstance(state, LoadingWorker)
        self._observer.worker_stopped(state.label, message, is_ready=is_ready, is_lost=is_lost)

    def _start_clip(self, state: WorkerState, attempt: ev.Attempt) -> None:
        # The loss of a gone worker is the schedule's next event and fails this clip too.
        if isinstance(state, RunningWorker):
            reference = state.handle.actor.render.remote(
                attempt.spec, attempt.number, attempt.uses_exact_attention
            )
            state.clips.append(reference)
        self._observer.clip_started(state.label, attempt)

    def _wait(self) -> Iterator[ev.Event]:
        """Yield the events of at most `WAIT_S` seconds, a `Tick` last."""
        self._ask_for_heartbeats()
        owners = {
            reference: (worker, state)
            for worker, state in self._workers.items()
            for reference in state.awaited
        }
        # Yielded last, so that clips that ended before their worker died are not attributed to it.
        lost: list[ev.WorkerLost] = []
        for reference in self._ready(list(owners)):
            worker, state = owners[reference]
            if worker not in self._workers:  # an event of another reference has stopped it
                continue
            if isinstance(state, RunningWorker):
                event = self._answered(worker, state, reference)
            else:
                event = self._loaded(worker, state, reference)
            if isinstance(event, ev.WorkerLost):
                lost.append(event)
            else:
                yield event
        yield from lost
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

    def _ready(self, references: list[Any]) -> list[Any]:
        """Wait up to `WAIT_S` seconds for an answer and return all that are there."""
        if not references:  # every worker is idle, and no heartbeat is due
            self._pause.wait(WAIT_S)
            return []
        ray.wait(references, num_returns=1, timeout=WAIT_S)
        ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        return ready

    def _ask_for_heartbeats(self) -> None:
        now = time.monotonic()
        for state in self._workers.values():
            if not isinstance(state, RunningWorker) or state.heartbeat is not None:
                continue
            if now >= state.heartbeat_due_s:
                state.heartbeat = state.handle.actor.heartbeat.remote()
                state.heartbeat_due_s = now + self._config.stall.heartbeat_interval_s

    def _loaded(self, worker: ev.WorkerId, state: WorkerState, reference: Any) -> ev.Event:
        """Return the event of a worker that has its devices, or that has loaded or cannot."""
        handle = state.handle
        if isinstance(state, LoadingWorker) and reference == handle.placed:
            state.is_placed = True
            return ev.WorkerPlaced(worker)
        try:
            loaded: LoadedWorker = ray.get(handle.load)
        except ray.exceptions.RayError as error:
            return load_failure(worker, self._setup.model.name, error)
        handle.nodes = loaded.nodes
        self._workers[worker] = RunningWorker(handle, loaded.label)
        node = loaded.identity.node_id
        self._observer.worker_ready(loaded.label, loaded.identity.device)
        return ev.WorkerReady(worker, loaded.label, node, loaded.spooled, loaded.nodes - {node})

    def _answered(self, worker: ev.WorkerId, state: RunningWorker, reference: Any) -> ev.Event:
        """Return the event of a `heartbeat` call or of a `render` call that has an answer."""
        try:
            answer: Any = ray.get(reference)
        # The process died, or broke: a clip's own failure comes back as a value.
        except ray.exceptions.RayError as error:
            self._workers[worker] = GoneWorker(state.handle, state.label)
            return ev.WorkerLost(worker, loss_reason(error), is_preempted=is_preempted(error))
        if reference == state.heartbeat:
            state.heartbeat = None
        else:
            state.clips.remove(reference)
        return self._event_of(worker, answer)

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
