"""The observer of a run: passes each event of the dispatcher to tally, metrics and console."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from jobs.costs.device_ledger import DeviceEvent
from jobs.errors import ModelFailedError
from jobs.metrics.run_metrics import RunMetrics, WorkerCounts
from jobs.records.schema import WorkerIdentity, utc_iso
from jobs.run.clip_entries import (
    committed_entry,
    failed_entry,
    given_back_entry,
    ready_entry,
    started_entry,
    stopped_entry,
)
from jobs.run.progress.console import ConsoleReport
from jobs.run.progress.loads import loads_at
from jobs.run.progress.log_entry import LogEntry, LogEvent
from jobs.run.progress.tally import RunTally
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine
from jobs.types import ClipDone, ClipFailed, WorkerHeartbeat
from pipelines.load_progress import LoadPosition


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
    _nodes: dict[str, str] = field(default_factory=dict[str, str], init=False)  # hosts by label

    def workers_waiting(self, devices: str | None) -> None:
        if devices is not None and devices != self.tally.waiting_for:
            self.report.say(LogEntry(f"waiting for {devices}", LogEvent.WORKERS_WAITING))
        self.tally.waiting_for = devices

    def workers_loading(self, positions: Sequence[LoadPosition]) -> None:
        self.tally.loading = loads_at(positions)

    def workers_counted(self, counts: Sequence[WorkerCounts]) -> None:
        self.metrics.workers_counted(counts)

    def devices_changed(self, event: DeviceEvent) -> None:
        self.tally.ledger.change(event, self.monotonic())

    def worker_ready(self, label: str, identity: WorkerIdentity, warning: str = "") -> None:
        self.tally.worker_ready()
        self.metrics.worker_ready(label, identity.host)
        self._nodes[label] = identity.host
        self.report.say(ready_entry(label, identity, warning))

    def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
        self.tally.worker_stopped(label, is_ready=is_ready, is_lost=is_lost)
        self.metrics.worker_stopped(label, is_lost=is_lost)
        node = self._nodes.get(label)
        self.report.say(stopped_entry(label, message, node, is_lost=is_lost))

    def worker_released(self, label: str, message: str, *, is_ready: bool) -> None:
        self.tally.worker_stopped(label, is_ready=is_ready, is_lost=False)
        self.metrics.worker_stopped(label, is_lost=False)
        if message and is_ready:
            self.report.say(given_back_entry(label, message, self._nodes.get(label)))

    def model_failed(self, model: str, error: ModelFailedError) -> None:
        message, error_type = f"stopped rendering with {model}: {error}", type(error).__name__
        event = LogEvent.MODEL_STOPPED
        self.report.say(LogEntry(message, event, "error", model=model, error_type=error_type))

    def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
        self.tally.worker_heartbeat(heartbeat)
        self.metrics.worker_heartbeat(label, heartbeat)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        self.tally.clip_started(label, attempt, self.monotonic())
        self.metrics.clip_started(label, attempt)
        self.report.note(started_entry(label, attempt, self._nodes.get(label)))

    def clip_returned(self, clip_id: str) -> None:
        self.tally.clip_returned(clip_id)
        self.metrics.clip_returned(clip_id)

    def clip_done(self, done: ClipDone) -> None:
        now = self.monotonic()
        label = self.tally.in_flight.worker_of(done.clip_id)
        self.report.note(committed_entry(done, label, self._nodes.get(label or "")))
        self.tally.clip_done(done, now)
        self.metrics.clip_done(done)
        self.report.clip_ended(self.tally, now)

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        now = self.monotonic()
        node = self._nodes.get(failed.worker)
        self.report.say(failed_entry(failed, decision, self.tally.in_flight, node))
        self.tally.clip_failed(failed, decision, now, utc_iso(time.time()))
        self.metrics.clip_failed(failed, decision)
        self.on_failed(failed, decision)
        if isinstance(decision, Quarantine):
            self.report.clip_ended(self.tally, now)

    def tick(self) -> None:
        now = self.monotonic()
        self.tally.tick(now)
        self.report.tick(self.tally, now)
        self.metrics.tick(now)
        self.on_tick()
