"""The workers of one kind in virtual time: they carry out the commands of a real schedule.

Stands where `jobs.cluster.dispatcher` stands in a run. A heartbeat changes a decision only at the
end of a plan, when clips are recalled, before a loss, and of a worker with a suspect, so that
others are left out, as are those without news. Loads without torch.
"""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial

from jobs.schedule import events as ev
from jobs.schedule.retry import Quarantine
from jobs.schedule.sharing import Share
from jobs.settings.run_config import RunConfig
from jobs.simulation.conditions import ClipTimes
from jobs.simulation.farm import Farm
from jobs.simulation.rendering import Rendering
from jobs.simulation.worker import HeldClip, SimulatedWorker
from jobs.types import ClipDone, ClipSpec

ANSWER_S = 0.05  # a recalled clip comes back
MAX_LOST_IN_A_ROW = 100  # for each device; with so many faults a run does not end


class SimulatedPool:
    """The clips of one kind on simulated workers.

    Args:
        config: settings of the run.
        share: part of the farm that the kind holds, with its schedule.
        clips: clips in the order of the run, each with its times.
        draw_start_s: draws the seconds in which a worker starts.
        clip_ended: called after each clip that is done or quarantined.
        plan_ended: called when every clip was given to the schedule, so that devices become free.
    """

    def __init__(
        self,
        farm: Farm,
        config: RunConfig,
        share: Share,
        clips: Iterator[tuple[ClipSpec, ClipTimes]],
        *,
        draw_start_s: Callable[[], float],
        clip_ended: Callable[[], None],
        plan_ended: Callable[[], None],
    ) -> None:
        self.share, self._schedule = share, share.schedule
        self._farm, self._clock = farm, farm.clock
        farm.when_free.append(self._place_workers)
        self._rendering = Rendering(
            farm,
            config.workers.spool_clips + 1,
            is_plan_over=lambda: self.is_plan_over,
            die=partial(self._lose, is_preempted=False),
            end_clip=self._end_clip,
        )
        self._interval_s = config.stall.heartbeat_interval_s
        self._clips, self._draw_start_s = clips, draw_start_s
        self._clip_ended, self._plan_ended = clip_ended, plan_ended
        self._times: dict[str, ClipTimes] = {}  # by id, until the clip has ended
        self._spooled: dict[str, str] = {}  # node of each clip that a lost worker had encoded
        self._workers: dict[ev.WorkerId, SimulatedWorker] = {}
        self._unplaced: dict[ev.WorkerId, frozenset[str]] = {}
        self.is_plan_over = False
        self._num_lost_in_a_row = 0
        self.num_done = self.num_quarantined = self.num_workers_lost = 0
        self.halt: str | None = None

    @property
    def is_over(self) -> bool:
        """Return True if no clip is left to start and none is in flight, or the run has halted."""
        return self.halt is not None or self._schedule.is_finished

    @property
    def computing_since(self) -> float:
        """Return the moment since which the longest clip is computed; infinity if none is."""
        return min(
            (one.computing_since for one in self._workers.values() if one.computing),
            default=float("inf"),
        )

    def start(self) -> None:
        self._carry_out(self._schedule.start(self._clock.now))

    def close(self) -> None:
        """Stop all workers, at the end of the kind; none that still waits takes their devices."""
        self._unplaced.clear()
        for worker in list(self._workers.values()):
            self._stop(worker)

    # commands of the schedule

    def handle(self, event: ev.Event) -> None:
        """Let the schedule decide about an event, and carry out its commands."""
        if self.halt is None:
            self._carry_out(self._schedule.handle(event, self._clock.now))

    def _carry_out(self, commands: list[ev.Command]) -> None:
        waiting = deque(commands)
        while waiting:
            command = waiting.popleft()
            match command:
                case ev.StartClip(number, attempt):
                    self._start_clip(number, attempt)
                case ev.TakeClip():
                    waiting.extend(self._schedule.handle(self._planned(), self._clock.now))
                case ev.StartWorker(number, cordoned):
                    self._unplaced[number] = cordoned
                    self._place_workers()
                case ev.StopWorker(number, _, is_lost):
                    self._stop_worker(number, is_lost=is_lost)
                case ev.ReleaseWorker(number):
                    self._stop_worker(number, is_lost=False)
                case ev.RecallClip(number, clip_id):
                    self._clock.after(ANSWER_S, self._recall, self._workers[number], clip_id)
                case ev.ReportFailure(failed, Quarantine()):
                    self._quarantine(failed.clip_id)
                case ev.Halt(error):
                    self.halt = str(error)
                    return
                case _:  # a failure that is tried again
                    pass

    def _planned(self) -> ev.Planned:
        spec, times = next(self._clips, (None, None))
        if spec is None or times is None:
            self.is_plan_over = True
            self._clock.after(self._interval_s, self._send_heartbeats)
            self._plan_ended()
        else:
            self._times[spec.clip_id] = times
        return ev.Planned(spec)

    # the life of a worker

    def _place_workers(self) -> None:
        """Give free devices to the workers that wait for them."""
        for number, cordoned in list(self._unplaced.items()):
            nodes = self._farm.place(self.share.demand.parallel, cordoned)
            if nodes is None:
                return
            del self._unplaced[number]
            worker = SimulatedWorker(number, nodes, idle_since=self._clock.now)
            self._workers[number] = worker
            self._clock.after(0.0, self.handle, ev.WorkerPlaced(number))
            self._clock.after(self._draw_start_s(), self._be_ready, worker)
            if (rate := self._farm.conditions.preemptions * len(nodes)) > 0:
                wait_s = self._farm.random.expovariate(rate / 3600)
                self._clock.after(wait_s, partial(self._lose, worker, is_preempted=True))

    def _be_ready(self, worker: SimulatedWorker) -> None:
        if worker.is_gone:
            return
        worker.is_ready = True
        label, others = f"worker {worker.number}", frozenset(worker.nodes) - {worker.node}
        here = frozenset(one for one, node in self._spooled.items() if node == worker.node)
        self.handle(ev.WorkerReady(worker.number, label, worker.node, here, others))

    def _stop_worker(self, number: ev.WorkerId, *, is_lost: bool) -> None:
        self._unplaced.pop(number, None)
        if number in self._workers:
            self._stop(self._workers[number])
        if not is_lost:
            return
        self.num_workers_lost += 1
        self._num_lost_in_a_row += 1
        if self._num_lost_in_a_row > MAX_LOST_IN_A_ROW * self._farm.conditions.num_devices:
            self.halt = f"{self._num_lost_in_a_row:,} workers were lost in a row, and no clip done"

    def _stop(self, worker: SimulatedWorker) -> None:
        """End a worker and free its devices."""
        worker.is_gone = True
        del self._workers[worker.number]
        self._rendering.end(worker)
        self._farm.release(worker.nodes)

    def lose_busiest(self) -> None:
        """Kill the worker that has computed its clip for longest, if any computes."""
        computing = [worker for worker in self._workers.values() if worker.computing]
        if computing:
            longest = min(computing, key=lambda worker: worker.computing_since)
            self._lose(longest, is_preempted=False)

    def _lose(self, worker: SimulatedWorker, *, is_preempted: bool) -> None:
        """Let a worker die with the clips that it holds."""
        if worker.is_gone:
            return
        if worker.is_ready:
            self.handle(ev.HeartbeatReceived(worker.number, worker.heartbeat()))
            for clip_id, clip in worker.held.items():
                if clip.stage == "upload" and not is_preempted:
                    self._spooled[clip_id] = worker.node
        self.handle(ev.WorkerLost(worker.number, "killed", is_preempted=is_preempted))

    def _send_heartbeats(self) -> None:
        """Let all workers report, at the end of the plan, and let time pass for the schedule."""
        if self.is_over:
            return
        for worker in list(self._workers.values()):
            self._report(worker)
        self.handle(ev.Tick())
        self._clock.after(self._interval_s, self._send_heartbeats)

    def _report(self, worker: SimulatedWorker) -> None:
        if worker.is_ready and worker.has_news and not worker.is_gone:
            self.handle(ev.HeartbeatReceived(worker.number, worker.heartbeat()))

    def _report_suspect(self, worker: SimulatedWorker) -> None:
        """Let a worker report, as long as it renders a suspect alone and others wait for it."""
        self._report(worker)
        self.handle(ev.Tick())
        if worker.has_suspect and not worker.is_gone:
            self._clock.after(self._interval_s, self._report_suspect, worker)

    # the clips of a worker

    def _start_clip(self, number: ev.WorkerId, attempt: ev.Attempt) -> None:
        worker, clip_id = self._workers[number], attempt.spec.clip_id
        clip = HeldClip(attempt, self._times[clip_id])
        if self._spooled.get(clip_id) == worker.node:
            clip.stage = "upload"  # it never was in the device's queue
            worker.take(clip)
            self._rendering.upload(worker, clip)
        else:
            worker.take(clip)
            self._rendering.begin_next(worker)
        if attempt.is_suspect:
            self._clock.after(self._interval_s, self._report_suspect, worker)

    def _end_clip(self, worker: SimulatedWorker, clip: HeldClip) -> None:
        if worker.is_gone:
            return
        spec = clip.attempt.spec
        del worker.held[spec.clip_id], self._times[spec.clip_id]
        self._spooled.pop(spec.clip_id, None)
        self.num_done += 1
        self._num_lost_in_a_row = 0
        done = ClipDone(spec.clip_id, spec.name, clip.attempt.number, ())
        self.handle(ev.ClipEnded(worker.number, done))
        self._clip_ended()

    def _quarantine(self, clip_id: str) -> None:
        self.num_quarantined += 1
        del self._times[clip_id]
        self._clip_ended()

    def _recall(self, worker: SimulatedWorker, clip_id: str) -> None:
        if not worker.is_gone and worker.hand_back(clip_id):
            self.handle(ev.ClipReturned(worker.number, clip_id))
