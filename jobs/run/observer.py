"""The observer of a run: passes each event of the dispatcher to the tally and the console."""

import time
from collections.abc import Callable, Sequence

from jobs.errors import ModelFailedError
from jobs.records.schema import utc_iso
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


class RunObserver:
    """Follows a run as the dispatcher's observer. Reads the clock once for each event.

    Args:
        tally: the counts to update.
        report: the console that shows them.
        on_failed: called with each failure; it writes the record.
        on_tick: called at each turn of the dispatch loop; an exception from it ends the run.
        monotonic: the clock, in seconds; it never goes back.
    """

    def __init__(
        self,
        tally: RunTally,
        report: ConsoleReport,
        on_failed: Callable[[ClipFailed, Decision], None],
        on_tick: Callable[[], None] = _noop,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tally = tally
        self._report = report
        self._on_failed = on_failed
        self._on_tick = on_tick
        self._monotonic = monotonic

    def workers_waiting(self, devices: str | None) -> None:
        if devices is not None and devices != self._tally.waiting_for:
            self._report.say(f"waiting for {devices}")
        self._tally.waiting_for = devices

    def workers_loading(self, positions: Sequence[LoadPosition]) -> None:
        self._tally.loading = loads_at(positions)

    def worker_ready(self, label: str, device: str) -> None:
        self._tally.worker_ready()
        self._report.say(f"worker {label} is ready on {device}")

    def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
        self._tally.worker_stopped(label, is_ready=is_ready, is_lost=is_lost)
        self._report.say(f"{'lost' if is_lost else 'replaced'} worker {label}: {message}")

    def worker_released(self, label: str, *, is_ready: bool) -> None:
        self._tally.worker_stopped(label, is_ready=is_ready, is_lost=False)

    def model_failed(self, model: str, error: ModelFailedError) -> None:
        self._report.say(f"stopped rendering with {model}: {error}")

    def worker_heartbeat(self, heartbeat: WorkerHeartbeat) -> None:
        self._tally.worker_heartbeat(heartbeat)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        self._tally.clip_started(label, attempt, self._monotonic())

    def clip_returned(self, clip_id: str) -> None:
        self._tally.in_flight.end(clip_id)

    def clip_done(self, done: ClipDone) -> None:
        now = self._monotonic()
        self._tally.clip_done(done, now)
        self._report.clip_ended(self._tally, now)

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        now = self._monotonic()
        self._tally.clip_failed(failed, decision, now, utc_iso(time.time()))
        cause = f"{failed.error_type}: {failed.message.splitlines()[0][:MAX_CAUSE]}"
        clip = f"{failed.name} ({failed.clip_id}) failed in attempt {failed.attempt}"
        self._report.say(f"{clip}: {cause}; {CONSEQUENCES[type(decision)]}")
        self._on_failed(failed, decision)
        if isinstance(decision, Quarantine):
            self._report.clip_ended(self._tally, now)

    def tick(self) -> None:
        self._report.tick(self._tally, self._monotonic())
        self._on_tick()
