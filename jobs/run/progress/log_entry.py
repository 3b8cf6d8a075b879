"""The entries of a log: the vocabulary of what a command says while it works.

Decides the events and the keys that programs read in the JSON format. A log in text shows the
message alone. docs/reference/logs.md lists both; a test compares them.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from jobs.json_lines import Level
from jobs.notify.run_notices import RunNotices
from jobs.records.run_status import RunSummary
from jobs.schedule.retry import Decision, Quarantine, Retry, Stop, Wait

DecisionName = Literal["retry", "wait", "quarantine", "stop"]
DECISIONS: Mapping[type[Decision], DecisionName] = {
    Retry: "retry",
    Wait: "wait",
    Quarantine: "quarantine",
    Stop: "stop",
}


class LogEvent(enum.StrEnum):
    """The events of a log, each with its meaning for people."""

    meaning: str

    MESSAGE = "message", "a line for people, such as a line of the plan"
    OUTPUT = "output", "a line that a library printed, such as Ray"
    RUN_STARTED = "run_started", "the run holds the lease of its output and begins"
    PROGRESS = "progress", "the first clip, the last, and every 10 s one in between has ended"
    WORKERS_WAITING = "workers_waiting", "workers wait for devices"
    WORKERS_LOADING = "workers_loading", "workers load their model, and none is ready"
    WORKER_READY = "worker_ready", "a worker has loaded its model"
    WORKER_LOST = "worker_lost", "a worker died or stalled, or could not load its model"
    WORKER_REPLACED = "worker_replaced", "a worker ended without a fault, such as after its clips"
    WORKER_GIVEN_BACK = "worker_given_back", "a worker ended for another run on the cluster"
    MODEL_STOPPED = "model_stopped", "the clips of a model cannot go on"
    CLIP_STARTED = "clip_started", "a worker has got a clip; JSON only"
    CLIP_COMMITTED = "clip_committed", "the record of a clip is in the store; JSON only"
    CLIP_FAILED = "clip_failed", "an attempt failed; `decision` says what follows"
    CLIPS_IN_FLIGHT = "clips_in_flight", "every minute, the clips that workers hold"
    CLIP_IN_FLIGHT = "clip_in_flight", "one of the eight oldest of these; JSON only"
    CLIPS_QUARANTINED = "clips_quarantined", "further clips of a model that cannot be used"
    NOTIFICATION_LOST = "notification_lost", "a notification could not be sent"
    RUN_FINISHED = "run_finished", "no clip is left to start"
    RUN_STOPPED = "run_stopped", "the run stopped before its end; JSON only"
    STOPPED = "stopped", "the last line of a command that stopped before its end"
    REFUSED = "refused", "the last line of a command that was refused before anything ran"
    EXCEPTION = "exception", "an exception that no code expected"

    def __new__(cls, name: str, meaning: str) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.meaning = meaning
        return member


@dataclass(frozen=True)
class LogEntry:
    """One entry of a log. Keys that are None are left out of its JSON.

    Args:
        message: the text for people, one line.
        event: the kind of entry.
        level: `error` if a person must act.
        clip: id of the clip.
        name: name of the clip.
        attempt: number of the try at the clip, from 1.
        worker: label of the worker: its host and process.
        node: host of the worker; for a group, the leader's.
        device: the worker's device.
        model: name of the model.
        stage: stage of the clip; after a failure, the last one that is known.
        step: last denoise step that has ended, from 0.
        num_steps: denoise steps of the clip.
        decision: the consequence of a failure: retry, wait, quarantine or stop.
        error_type: class of the error.
        traceback: traceback of the error; beyond 10,000 characters the middle is left out.
        stages_s: seconds of each stage of a clip, all denoise steps together; at a run's end of all
            its clips.
        running_s: seconds since the worker got the clip.
        elapsed_s: seconds since the start of the run.
        left_s: seconds that the rest of the run takes, estimated.
        busy_share: share of the time in which the devices were busy, 0 to 1.
        device_hours: hours for which workers held devices, times these devices.
        wasted_share: part of them without a committed clip of its own, 0 to 1.
        price: price of them, in `costs.currency`.
        num_clips: clips to render; on `clips_in_flight`, clips that workers hold.
        num_committed: clips that this run has committed.
        num_quarantined: clips that this run has quarantined.
        num_failures: attempts that failed in this run.
        num_workers: workers at work.
        num_workers_lost: workers lost in this run.
        output: URI of the output.
    """

    message: str
    event: LogEvent = LogEvent.MESSAGE
    level: Level = "info"
    clip: str | None = None
    name: str | None = None
    attempt: int | None = None
    worker: str | None = None
    node: str | None = None
    device: str | None = None
    model: str | None = None
    stage: str | None = None
    step: int | None = None
    num_steps: int | None = None
    decision: DecisionName | None = None
    error_type: str | None = None
    traceback: str | None = None
    stages_s: Mapping[str, float] | None = None
    running_s: float | None = None
    elapsed_s: float | None = None
    left_s: float | None = None
    busy_share: float | None = None
    device_hours: float | None = None
    wasted_share: float | None = None
    price: float | None = None
    num_clips: int | None = None
    num_committed: int | None = None
    num_quarantined: int | None = None
    num_failures: int | None = None
    num_workers: int | None = None
    num_workers_lost: int | None = None
    output: str | None = None

    @property
    def facts(self) -> dict[str, Any]:
        """Return the keys beside event, message and level."""
        names = [one.name for one in fields(self)][3:]
        return {name: getattr(self, name) for name in names}


def counts_entry(summary: RunSummary, message: str, event: LogEvent) -> LogEntry:
    """Return the entry of a run that has ended, with its counts."""
    return LogEntry(
        message,
        event,
        "info" if summary.stop is None else "error",
        error_type=None if summary.stop is None else summary.stop.error_type,
        elapsed_s=summary.wall_s,
        stages_s=summary.stage_totals_s,
        busy_share=summary.busy_share,
        device_hours=summary.cost.device_hours,
        wasted_share=summary.cost.wasted_share,
        price=summary.cost.price,
        num_committed=summary.num_committed,
        num_quarantined=summary.num_quarantined,
        num_failures=summary.num_failures,
        num_workers_lost=summary.num_workers_lost,
    )


def lost_entries(notices: RunNotices) -> list[LogEntry]:
    """Return an entry for each notification that was lost since the last call."""
    event = LogEvent.NOTIFICATION_LOST
    return [LogEntry(line, event, "warning") for line in notices.news()]
