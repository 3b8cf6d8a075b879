"""The observer of a run: passes each event of the dispatcher to tally, metrics and console."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.errors import ModelFailedError
from jobs.metrics.run_metrics import RunMetrics, WorkerCounts
from jobs.records.schema import WorkerIdentity, utc_iso
from jobs.run.console import ConsoleReport
from jobs.run.loads import loads_at
from jobs.run.tally import RunTally
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry, Stop, Wait
from jobs.types import ClipDone, ClipFailed, WorkerHeartbeat
from pipelines.load_progress import LoadPosition

MAX_CAUSE = 300  # characters of an error in a log line
CONSEQUENCES = {
    Retry: "will be tried again",
    Wait: "waits, and will be tried again",
    Quarantine: "quarantined",
    Stop: "the run stops",
}


def _noop() -> None:
    pass


@dataclass(eq=False)
class RunObserver:
    """Follows a run as the dispatcher's observer. Reads the clock once for each event.

    Args:
        tally: the counts to update.
        report: the console that shows them.
        on_failed: called with each failure; it writes the record.
        on_tick: called at each turn of the dispatch loop; an exception from it ends the run.
        metrics: the metrics to record.
        monotonic: the clock, in seconds; it never goes back.
    """

    tally: RunTally
    report: ConsoleReport
    on_failed: Callable[[ClipFailed, Decision], None]
    on_tick: Callable[[], None] = _noop
    metrics: RunMetrics = field(default_factory=RunMetrics)
    monotonic: Callable[[], float] = time.monotonic

    def workers_waiting(self, devices: str | None) -> None:
        if devices is not None and devices != self.tally.waiting_for:
            self.report.say(f"waiting for {devices}")
        self.tally.waiting_for = devices

    def workers_loading(self, positions: Sequence[LoadPosition]) -> None:
        self.tally.loading = loads_at(positions)

    def workers_counted(self, counts: Sequence[WorkerCounts]) -> None:
        self.metrics.workers_counted(counts)

    def worker_ready(self, label: str, identity: WorkerIdentity) -> None:
        self.tally.worker_ready()
        self.metrics.worker_ready(label, identity.host)
        self.report.say(f"worker {label} is ready on {identity.device}")

    def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
        self.tally.worker_stopped(label, is_ready=is_ready, is_lost=is_lost)
        self.metrics.worker_stopped(label, is_lost=is_lost)
        self.report.say(f"{'lost' if is_lost else 'replaced'} worker {label}: {message}")

    def worker_released(self, label: str, *, is_ready: bool) -> None:
        self.tally.worker_stopped(label, is_ready=is_ready, is_lost=False)
        self.metrics.worker_stopped(label, is_lost=False)

    def model_failed(self, model: str, error: ModelFailedError) -> None:
        self.report.say(f"stopped rendering with {model}: {error}")

    def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
        self.tally.worker_heartbeat(heartbeat)
        self.metrics.worker_heartbeat(label, heartbeat)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        self.tally.clip_started(label, attempt, self.monotonic())
        self.metrics.clip_started(label, attempt)

    def clip_returned(self, clip_id: str) -> None:
        self.tally.in_flight.end(clip_id)
        self.metrics.clip_returned(clip_id)

    def clip_done(self, done: ClipDone) -> None:
        now = self.monotonic()
        self.tally.clip_done(done, now)
        self.metrics.clip_done(done)
        self.report.clip_ended(self.tally, now)

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        now = self.monotonic()
        self.tally.clip_failed(failed, decision, now, utc_iso(time.time()))
        self.metrics.clip_failed(failed, decision)
        cause = f"{failed.error_type}: {failed.message.splitlines()[0][:MAX_CAUSE]}"
        clip = f"{failed.name} ({failed.clip_id}) failed in attempt {failed.attempt}"
        self.report.say(f"{clip}: {cause}; {CONSEQUENCES[type(decision)]}")
        self.on_failed(failed, decision)
        if isinstance(decision, Quarantine):
            self.report.clip_ended(self.tally, now)

    def tick(self) -> None:
        now = self.monotonic()
        self.report.tick(self.tally, now)
        self.metrics.tick(now)
        self.on_tick()
