"""The status of a run while it goes on, and its summary at the end: two files beside run.json.

Decides what the documents hold. The driver overwrites the status every few seconds; no decision
depends on it, because a clip is committed if and only if it has a record. `jobs.run` writes the
status and `nagfarm status` shows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, Self

from jobs.costs.run_cost import NO_COST, RunCost
from jobs.errors import JobError, RecordError
from jobs.records.commit import JSON, read_as
from jobs.records.keys import STATUS_FILE, check_clip_id, check_run_id, run_key
from jobs.records.schema import check_at_least, check_time, utc_iso
from jobs.records.strict_json import dump, from_dataclass, load, to_dataclass
from jobs.redaction import redact
from jobs.store.store import Store
from jobs.timetable.clock_times import Deadline
from jobs.timetable.dated_output import OutputDay
from jobs.types import ClipFailed, Failure, Stage, fields_of
from nag.errors import NagError
from pipelines.errors import PipelineError
from pipelines.load_progress import LoadPart

MAX_MESSAGE = 1000  # characters of the message of a failure or a stop in the status
RunState = Literal["rendering", "draining", "finished", "stopped"]


@dataclass(frozen=True)
class ClipInFlight:
    """A clip that a worker holds.

    Args:
        step: last denoise step that is known to have ended, from 0; None before the first and in
            other stages.
        running_s: seconds since the worker received this attempt.
    """

    clip_id: str
    name: str
    worker: str
    stage: Stage
    step: int | None
    num_steps: int
    running_s: float

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)


@dataclass(frozen=True)
class KindStatus:
    """The clips of one kind in a run: one model, size, number of steps and group of devices.

    Args:
        num_devices: devices of the group that renders a clip; 1 for single workers.
        num_clips: clips that the run is to render.
        clips_per_hour: rate in the last half hour in which devices had clips of this kind, with the
            steps of those in flight; None before the first step.
        clip_s: median of the seconds of a clip on its devices; None before the first clip.
    """

    model: str
    num_frames: int
    height: int
    width: int
    num_inference_steps: int
    num_devices: int
    num_clips: int
    num_committed: int
    num_quarantined: int
    num_in_flight: int
    clips_per_hour: float | None
    clip_s: float | None

    def __post_init__(self) -> None:
        for name in ("num_clips", "num_committed", "num_quarantined", "num_in_flight"):
            check_at_least(name, getattr(self, name), 0)


@dataclass(frozen=True)
class LoadingWorkers:
    """Workers that load their model and are at the same parts of that.

    Args:
        parts: parts under way, two at most at once; empty while the process starts.
        verified: the least share of the weights that one of them has verified, from 0 to 1.
    """

    parts: tuple[LoadPart, ...]
    num_workers: int
    verified: float

    def __post_init__(self) -> None:
        check_at_least("num_workers", self.num_workers, 1)


@dataclass(frozen=True, kw_only=True)
class FailureSeen(Failure):
    """One of the last failures, cut short; its FailureRecord holds all of it."""

    failed_at: str

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_time("failed_at", self.failed_at)

    @classmethod
    def of(cls, failed: ClipFailed, failed_at: str) -> Self:
        seen = cls(**fields_of(Failure, failed), failed_at=failed_at)
        return replace(seen, message=failed.message[:MAX_MESSAGE])


@dataclass(frozen=True)
class RunStop:
    """The reason why a run was stopped.

    Args:
        error_type: class of the error, by which programs tell the reasons apart.
        message: the reason for people.
    """

    error_type: str
    message: str

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """Build the reason from the error that ended the run, expected or not."""
        name = type(error).__name__
        is_expected = isinstance(error, JobError | PipelineError | NagError)
        message = str(error) if is_expected else f"unexpected {name}: {error}"
        return cls(name, redact(message)[:MAX_MESSAGE])


@dataclass(frozen=True)
class RunDeadline:
    """The moment at which a run must have ended, by the driver's clock.

    Args:
        at: the moment, in UTC.
        time_zone: name of the zone in which people named it.
    """

    at: str
    time_zone: str

    def __post_init__(self) -> None:
        check_time("at", self.at)

    @classmethod
    def of(cls, deadline: Deadline | None) -> Self | None:
        return deadline and cls(utc_iso(deadline.at), deadline.zone.name)


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """The counts of one run that its status and its summary share, and the reason for its end.

    Args:
        num_committed: clips whose record is in the store since this run.
        num_quarantined: clips that this run quarantined.
        num_failures: failed attempts, with those of clips that a later attempt committed.
        num_workers_lost: workers that failed.
        busy_share: share of the time in which the workers' devices were busy, between the first and
            the last clip of each worker; None before the first clip is rendered.
        stop: the reason why the run drains or was stopped; None while it renders, and if it has
            finished.
        output_day: day after which the output is named; None if it has no {date} and no {week}.
        deadline: moment at which the run must have ended; None if it has no deadline.
        cost: device-hours that its workers held so far, and their price.
    """

    run_id: str
    num_committed: int
    num_quarantined: int
    num_failures: int
    num_workers_lost: int
    busy_share: float | None
    stop: RunStop | None
    output_day: OutputDay | None
    deadline: RunDeadline | None
    cost: RunCost = NO_COST

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        for name in ("num_committed", "num_quarantined", "num_failures", "num_workers_lost"):
            check_at_least(name, getattr(self, name), 0)
        if self.busy_share is not None and not 0 <= self.busy_share <= 1:
            raise RecordError(f"busy_share must be 0 to 1, not {self.busy_share}")
        self.cost.check_limits()


@dataclass(frozen=True, kw_only=True)
class RunStatus(RunCounts):
    """The state of a run at one moment.

    Args:
        updated_at: time of writing, by the driver's clock.
        num_clips: all clips of the manifest, with those of `num_done_before`.
        num_done_before: clips that were committed before this run.
        clips_per_hour: None before the first clip is committed.
        eta_s: likely seconds until the end; None until the run has a pace.
        eta_low_s, eta_high_s: the range of `eta_s`, within which about eight of ten runs end.
        waiting_for: the devices for which workers wait, and who has them; None if no worker waits.
        kinds: the kinds of clip that the run is to render, with the rate of each; at most 50.
        loading: the workers that have their devices and load their model.
        num_log_bytes_dropped: bytes of the driver's stdout and stderr that could not be written.
        log_trouble: the reason why the last of them could not be written; None if there are none.
    """

    state: RunState
    updated_at: str
    num_clips: int
    num_done_before: int
    num_workers: int
    elapsed_s: float
    clips_per_hour: float | None
    eta_s: float | None
    eta_low_s: float | None
    eta_high_s: float | None
    waiting_for: str | None
    loading: tuple[LoadingWorkers, ...]
    kinds: tuple[KindStatus, ...]
    in_flight: tuple[ClipInFlight, ...]
    last_failures: tuple[FailureSeen, ...]
    num_log_bytes_dropped: int
    log_trouble: str | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_time("updated_at", self.updated_at)
        for name in ("num_clips", "num_done_before", "num_workers", "num_log_bytes_dropped"):
            check_at_least(name, getattr(self, name), 0)
        if self.elapsed_s < 0:
            raise RecordError(f"elapsed_s must be at least 0, not {self.elapsed_s}")

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a status. Raises RecordError if it is damaged or of another version."""
        return to_dataclass(cls, load(content))


@dataclass(frozen=True, kw_only=True)
class RunSummary(RunCounts):
    """The result of a run.

    Args:
        is_finished: True if no clip is left to start; False if the run was stopped.
        num_left: clips to render that were neither committed nor quarantined.
        wall_s: duration of the whole run, in seconds.
        stage_totals_s: seconds per stage, of all workers together; stages overlap, so the sum may
            exceed `wall_s`.
    """

    is_finished: bool
    num_left: int
    wall_s: float
    stage_totals_s: Mapping[str, float]

    @classmethod
    def of(cls, last: RunStatus, stage_totals_s: dict[str, float], num_left: int) -> Self:
        """Build the summary from the last status of a run."""
        return cls(
            run_id=last.run_id,
            num_committed=last.num_committed,
            num_quarantined=last.num_quarantined,
            num_failures=last.num_failures,
            num_workers_lost=last.num_workers_lost,
            busy_share=last.busy_share,
            stop=last.stop,
            output_day=last.output_day,
            deadline=last.deadline,
            cost=last.cost,
            num_left=num_left,
            is_finished=last.state == "finished",
            wall_s=last.elapsed_s,
            stage_totals_s=stage_totals_s,
        )


def write_status(store: Store, status: RunStatus) -> None:
    store.put(run_key(status.run_id, STATUS_FILE), status.to_json(), JSON)


def read_status(store: Store, run_id: str) -> RunStatus:
    """Read the status of a run.

    Raises:
        ObjectMissingError: when the run has written none yet.
        RecordError: when the object cannot be read as a status.
    """
    return read_as(store, run_key(run_id, STATUS_FILE), RunStatus.from_json)
