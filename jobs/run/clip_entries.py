"""The log's entries of clips and workers, made of the dispatch loop's events. Pure."""

from collections import defaultdict

from jobs.records.schema import WorkerIdentity
from jobs.run.progress.in_flight import InFlight
from jobs.run.progress.log_entry import DECISIONS, LogEntry, LogEvent
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry, Stop, Wait
from jobs.types import ClipDone, ClipFailed

MAX_CAUSE = 300  # characters of an error in a log line
CONSEQUENCES = {
    Retry: "will be tried again",
    Wait: "waits, and will be tried again",
    Quarantine: "quarantined",
    Stop: "the run stops",
}


def ready_entry(label: str, identity: WorkerIdentity, warning: str = "") -> LogEntry:
    """Return the entry of a worker that has loaded its model.

    Args:
        warning: words about the memory of its device.
    """
    return LogEntry(
        f"worker {label} is ready on {identity.device}" + (f"; {warning}" if warning else ""),
        LogEvent.WORKER_READY,
        "warning" if warning else "info",
        worker=label,
        node=identity.host,
        device=identity.device,
    )


def stopped_entry(label: str, message: str, node: str | None, *, is_lost: bool) -> LogEntry:
    return LogEntry(
        f"{'lost' if is_lost else 'replaced'} worker {label}: {message}",
        LogEvent.WORKER_LOST if is_lost else LogEvent.WORKER_REPLACED,
        "warning" if is_lost else "info",
        worker=label,
        node=node,
    )


def given_back_entry(label: str, message: str, node: str | None) -> LogEntry:
    text = f"gave back worker {label}: {message}"
    return LogEntry(text, LogEvent.WORKER_GIVEN_BACK, worker=label, node=node)


def started_entry(label: str, attempt: Attempt, node: str | None) -> LogEntry:
    spec = attempt.spec
    return LogEntry(
        f"{spec.name} ({spec.clip_id}) goes to worker {label}",
        LogEvent.CLIP_STARTED,
        clip=spec.clip_id,
        name=spec.name,
        attempt=attempt.number,
        worker=label,
        node=node,
        model=spec.model.name,
        num_steps=spec.num_steps,
    )


def committed_entry(done: ClipDone, label: str | None, node: str | None) -> LogEntry:
    stages_s = defaultdict[str, float](float)
    for timing in done.timings:
        stages_s[timing.stage] += timing.duration_s
    return LogEntry(
        f"{done.name} ({done.clip_id}) is committed",
        LogEvent.CLIP_COMMITTED,
        clip=done.clip_id,
        name=done.name,
        attempt=done.attempt,
        worker=label,
        node=node,
        stages_s=stages_s,
    )


def failed_entry(
    failed: ClipFailed, decision: Decision, in_flight: InFlight, node: str | None
) -> LogEntry:
    """Return the entry of a failed attempt.

    Args:
        in_flight: the clips in flight, with the failed one.
        node: host of the worker, if it was ready.
    """
    cause = f"{failed.error_type}: {failed.message.splitlines()[0][:MAX_CAUSE]}"
    clip = f"{failed.name} ({failed.clip_id}) failed in attempt {failed.attempt}"
    is_lasting = isinstance(decision, Quarantine | Stop)
    timed = failed.timings[-1].stage if failed.timings else None
    return LogEntry(
        f"{clip}: {cause}; {CONSEQUENCES[type(decision)]}",
        LogEvent.CLIP_FAILED,
        "error" if is_lasting else "warning",
        clip=failed.clip_id,
        name=failed.name,
        attempt=failed.attempt,
        worker=failed.worker,
        node=node,
        stage=timed or in_flight.stage_of(failed.clip_id),
        decision=DECISIONS[type(decision)],
        error_type=failed.error_type,
        traceback=failed.traceback or None,
    )
