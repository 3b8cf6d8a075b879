"""The workers of a run: heartbeats, back-off, recycling, draining, loss, replacement.

The worker half of the schedule. `recruiting` starts them. Hands the clips of a lost worker back to
`Clips`. Loads without torch.
"""

from dataclasses import replace

from jobs.errors import FailureClass
from jobs.schedule import events as ev
from jobs.schedule.attribution import NodeAttribution
from jobs.schedule.clips import Clips
from jobs.schedule.deadlines import COMPUTE_STAGES, Deadlines, preparation_key
from jobs.schedule.events import Attempt, Command
from jobs.schedule.outage import Outage
from jobs.schedule.pool import Pool
from jobs.schedule.pooled_worker import LoadedWorker, Loss, Retiring
from jobs.schedule.recruiting import Recruiting
from jobs.schedule.run_deadline import RunDeadline
from jobs.settings.run_config import RunConfig
from jobs.types import ClipDone, ClipFailed

REPLACED_AFTER: dict[FailureClass, str] = {
    "memory": "replaced, since it ran out of memory",
    "worker": "replaced, since its device or its machine failed",
}


class Workers:
    """The workers of one model, each kept, replaced or stopped by what it reports.

    Args:
        num_workers: number of workers to keep.
        pool: workers that are there; also read by `clips`.
        clips: owner of the clips that wait for a worker.
        run_deadline: learns how long clips take.
    """

    def __init__(
        self,
        config: RunConfig,
        num_workers: int,
        pool: Pool,
        clips: Clips,
        run_deadline: RunDeadline,
    ) -> None:
        self._config = config
        self._pool = pool
        self._clips = clips
        self._run_deadline = run_deadline
        self._deadlines = Deadlines(config.stall)
        self._outage = Outage(config.retry)
        self._attribution = NodeAttribution(config.retry.max_losses_of_node)
        self.recruiting = Recruiting(
            config.workers, num_workers, pool, self._outage, self._attribution
        )
        self._draining_nodes = frozenset[str]()
        self._heard_since = 0.0  # no worker's last heartbeat or answer is older

    def exclude_gap(self, gap_s: float) -> None:
        """Leave time in which the driver itself slept out of all durations."""
        self.recruiting.exclude_gap(gap_s)
        for worker in self._pool.loaded.values():
            worker.heard_at += gap_s
            worker.ended_at += gap_s
            for clip_id, attempt in worker.attempts.items():
                worker.attempts[clip_id] = replace(attempt, started_at=attempt.started_at + gap_s)
        self._outage.exclude_gap(gap_s)

    # the life of a worker

    def ready(self, event: ev.WorkerReady, now: float) -> list[Command]:
        """Take a worker that has loaded its model into use."""
        loading = self._pool.coming.get(event.worker)
        if loading is not None:
            worker = LoadedWorker(event.worker, event.label, event.node, event.others, heard_at=now)
            self._pool.put(event.worker, worker)
            self.recruiting.record_loaded()
            self._outage.record_answer(loading.asked_at)
            self._drain_nodes()
            self._clips.learn_spool(event.node, event.spooled)
        return []

    def heartbeat(self, event: ev.HeartbeatReceived, now: float) -> list[Command]:
        """Take in a worker's progress; replace the worker if one of its clips has stalled."""
        worker, heartbeat = self._pool.find_loaded(event.worker), event.heartbeat
        if worker is None:
            return []
        worker.heard_at = now
        worker.progress = {progress.clip_id: progress for progress in heartbeat.clips}
        if heartbeat.is_draining:
            worker.drain("its process received SIGTERM")
        worker.consider_recycling(self._config.workers, heartbeat.memory_bytes)
        self._learn_answers(worker)
        stalls = worker.stalls(self._deadlines)
        if not stalls:
            return []
        message = next(iter(stalls.values()))
        attributed = frozenset(
            clip_id for clip_id in stalls if worker.progress[clip_id].stage in COMPUTE_STAGES
        )
        commands = self._lose(worker, Loss(message, attributed, failure_class="stall"))
        if not attributed:  # it hangs at the store
            commands += self._record_refusal(message, now)
        return commands

    def nodes_draining(self, event: ev.NodesDraining, _now: float) -> list[Command]:
        self._draining_nodes = event.nodes
        self._drain_nodes()
        return []

    def lost(self, event: ev.WorkerLost, _now: float) -> list[Command]:
        """Replace a worker whose process is gone."""
        if event.worker in self._pool.coming:
            self._pool.remove(event.worker)
            return [ev.StopWorker(event.worker, event.message, may_return=True)]
        worker = self._pool.find_loaded(event.worker)
        if worker is None:
            return []
        is_charged = not (event.is_preempted or worker.is_draining)
        return self._lose(worker, worker.lost(event.message) if is_charged else Loss(event.message))

    def check_deadlines(self, _event: ev.Tick, now: float) -> list[Command]:
        """Stop the workers that load for too long or send no heartbeats."""
        commands = self.recruiting.check_deadlines(now)
        heartbeat_timeout_s = self._config.stall.heartbeat_timeout_s
        if now - self._heard_since <= heartbeat_timeout_s:
            return commands
        self._heard_since = min((one.heard_at for one in self._pool.loaded.values()), default=now)
        for _, worker in sorted(self._pool.loaded.items()):
            if (silent_s := now - worker.heard_at) > heartbeat_timeout_s:
                message = (
                    f"stalled: no heartbeat for {silent_s:.0f} s, the deadline is "
                    f"{heartbeat_timeout_s:g} s (stall.heartbeat_timeout_s)"
                )
                commands += self._lose(worker, worker.lost(message, "stall"))
        return commands

    def stop_retired(self) -> list[Command]:
        """Stop the retiring workers that have no clips in flight any more."""
        commands: list[Command] = []
        for number in self._pool.retired:
            state = self._pool.loaded[number].state
            assert isinstance(state, Retiring), "only retiring workers are retired"
            self._pool.remove(number)
            is_given_back = state.is_given_back
            commands.append(
                ev.ReleaseWorker(number, state.reason)
                if is_given_back
                else ev.StopWorker(number, state.reason, is_lost=False)
            )
        return commands

    # the clips of a worker

    def clip_ended(self, event: ev.ClipEnded, now: float) -> list[Command]:
        """Take in a worker's answer about a clip that it had in flight."""
        worker = self._pool.find_loaded(event.worker)
        if worker is None:
            return []
        worker.heard_at = worker.ended_at = now
        attempt = worker.pop(event.outcome.clip_id)
        if attempt is None:
            return []
        if isinstance(event.outcome, ClipDone):
            self._clip_done(worker, attempt, event.outcome, now)
            return []
        return self._clip_failed(worker, attempt, event.outcome, now)

    def _clip_done(
        self, worker: LoadedWorker, attempt: Attempt, done: ClipDone, now: float
    ) -> None:
        self._clips.record_done()
        worker.record_done()
        self._outage.record_answer(now)
        self._deadlines.learn(attempt, done.timings)
        self._run_deadline.learn(attempt, done.timings)
        if any(timing.stage == "denoise" for timing in done.timings):
            worker.prepared_for.add(preparation_key(attempt))
        self._attribution.record_done(attempt, worker.nodes)
        worker.consider_recycling(self._config.workers, done.memory_bytes)

    def _clip_failed(
        self, worker: LoadedWorker, attempt: Attempt, failed: ClipFailed, now: float
    ) -> list[Command]:
        attempt = replace(attempt, node=worker.node if failed.is_spooled else None)
        commands: list[Command] = []
        if failed.failure_class == "store" and failed.may_pass_on_retry:
            worker.pause(self._outage, now)
            commands += self._record_refusal(failed.message, now)
        if failed.failure_class == "worker":
            attempt = worker.charge(attempt)
        commands += self._clips.fail(attempt, failed)
        if failed.failure_class in ("request", "store"):  # the worker is not at fault
            return commands
        worker.num_failures_in_a_row += 1
        if failed.failure_class in REPLACED_AFTER:
            loss = Loss(REPLACED_AFTER[failed.failure_class])
            commands += self._lose(worker, loss, is_spent=failed.failure_class == "memory")
        elif worker.num_failures_in_a_row >= self._config.retry.max_failures_of_worker:
            self._attribution.attribute(worker.number, worker.nodes)
            loss = Loss(f"replaced after {worker.num_failures_in_a_row} failures in a row")
            commands += self._lose(worker, loss, is_spent=True)
        return commands

    def _lose(self, worker: LoadedWorker, loss: Loss, *, is_spent: bool = False) -> list[Command]:
        """Take a worker out of the pool and hand its clips back.

        Args:
            is_spent: True if none of its processes may serve in another worker.
        """
        self._pool.remove(worker.number)
        may_return = not (is_spent or worker.is_draining)
        stop = ev.StopWorker(worker.number, loss.message, may_return=may_return)
        return [stop, *self._clips.take_back(worker, loss)]

    def _drain_nodes(self) -> None:
        if not self._draining_nodes:
            return
        for number, worker in self._pool.loaded.items():
            if worker.nodes & self._draining_nodes:
                self._pool.change(number).drain("its node is being drained")

    # the store

    def _learn_answers(self, worker: LoadedWorker) -> None:
        """End the outage if a clip is past its lookup, so that the store has answered since."""
        if not self._outage.is_on:
            return
        for clip_id, attempt in worker.attempts.items():
            progress = worker.progress.get(clip_id)
            if progress is not None and progress.stage in COMPUTE_STAGES | {"queue"}:
                self._outage.record_answer(attempt.started_at)

    def _record_refusal(self, message: str, now: float) -> list[Command]:
        """Halt the run after too long an outage, unless a clip is computed: it will be spooled."""
        is_computing = self._pool.is_run_computing
        error = self._outage.record_refusal(now, message, is_computing=is_computing)
        return [] if error is None else [ev.Halt(error)]
