"""The records that lie in the store beside the clips: their schema, and the keys under which they lie.

Decides what a record may hold; docs/reference/records.md says what each field means. When records are written is for `records`,
and how those of an earlier version are read for `record_versions`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Self

from jobs.config import EncodingConfig
from jobs.errors import FailureClass, RecordError
from jobs.records.keys import check_clip_id, check_run_id, clip_key
from jobs.records.strict_json import dump, from_dataclass, to_dataclass
from jobs.records.versions import SCHEMA_VERSION, load_versioned
from jobs.types import ClipFailed, ModelIdentity, StageTiming
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest


@dataclass(frozen=True)
class WorkerIdentity:
    """Which process made a clip, on what."""

    host: str
    node_id: str
    device: str
    pid: int


@dataclass(frozen=True)
class NagCoverage:
    """How many of the model's text cross-attentions NAG guides."""

    guided: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.guided <= self.total:
            raise RecordError(f"{self.guided} of {self.total} is no coverage")

    def __str__(self) -> str:
        return f"{self.guided} of {self.total}"


@dataclass(frozen=True)
class ClipRecord:
    """That one clip is done: what was asked for, what came of it, where it is and what it took."""

    clip_id: str
    name: str
    model: ModelIdentity
    request: GenerationRequest
    parallel: ParallelConfig
    run_id: str
    attempt: int
    uri: str
    key: str
    sha256: str
    num_bytes: int
    num_frames: int
    width: int
    height: int
    fps: float
    committed_at: str
    timings: tuple[StageTiming, ...]
    encoding: EncodingConfig
    worker: WorkerIdentity
    peak_memory_bytes: int
    peak_memory_kind: Literal["device", "host"]
    host_memory_bytes: int | None
    attention: Literal["fused", "exact"]
    nag_coverage: NagCoverage
    versions: Mapping[str, str]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_run_id(self.run_id)
        check_time("committed_at", self.committed_at)
        if self.key != clip_key(self.clip_id, self.sha256):
            raise RecordError(
                f"key must be {clip_key(self.clip_id, self.sha256)}, not {self.key!r}"
            )
        if not self.uri.endswith(f"/{self.key}"):
            raise RecordError(f"uri must end in the key {self.key}, not be {self.uri!r}")
        for name in ("attempt", "num_bytes", "num_frames", "width", "height"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("peak_memory_bytes", self.peak_memory_bytes, 0)
        check_at_least("host_memory_bytes", self.host_memory_bytes or 0, 0)
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise RecordError(f"fps must be above 0, not {self.fps}")

    @property
    def stage_totals_s(self) -> dict[str, float]:
        """Seconds per stage, its steps added up."""
        return stage_totals_s(self.timings)

    def to_json(self) -> bytes:
        return dump({**from_dataclass(self), "stage_totals_s": self.stage_totals_s})

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Reads a record of this schema version or an earlier one.

        Raises:
            RecordError: it is damaged, or a later version's.
        """
        document = load_versioned(content)
        totals = document.pop("stage_totals_s", None)
        record = to_dataclass(cls, document)
        if totals != record.stage_totals_s:
            raise RecordError("stage_totals_s must be the sums of timings")
        return record


@dataclass(frozen=True)
class FailureRecord:
    """Why one attempt at a clip did not end in a record."""

    clip_id: str
    name: str
    run_id: str
    attempt: int
    failure_class: FailureClass
    may_pass_on_retry: bool
    error_type: str
    message: str
    traceback: str
    worker: str
    failed_at: str
    timings: tuple[StageTiming, ...]
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_run_id(self.run_id)
        check_time("failed_at", self.failed_at)
        check_at_least("attempt", self.attempt, 1)

    @classmethod
    def of(cls, failed: ClipFailed, run_id: str, failed_at: str) -> Self:
        return cls(
            clip_id=failed.clip_id,
            name=failed.name,
            run_id=run_id,
            attempt=failed.attempt,
            failure_class=failed.failure_class,
            may_pass_on_retry=failed.may_pass_on_retry,
            error_type=failed.error_type,
            message=failed.message,
            traceback=failed.traceback,
            worker=failed.worker,
            failed_at=failed_at,
            timings=failed.timings,
        )

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        return to_dataclass(cls, load_versioned(content))


@dataclass(frozen=True)
class QuarantineRecord:
    """That a clip is given up until somebody lifts it, and why."""

    clip_id: str
    name: str
    run_id: str
    reason: str
    num_attempts: int
    failure_class: FailureClass
    error_type: str
    message: str
    worker: str
    quarantined_at: str
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_run_id(self.run_id)
        check_time("quarantined_at", self.quarantined_at)
        check_at_least("num_attempts", self.num_attempts, 1)

    @classmethod
    def of(cls, last: ClipFailed, run_id: str, reason: str, quarantined_at: str) -> Self:
        """Of the last failure, whose attempt is taken for the number of attempts."""
        return cls(
            clip_id=last.clip_id,
            name=last.name,
            run_id=run_id,
            reason=reason,
            num_attempts=last.attempt,
            failure_class=last.failure_class,
            error_type=last.error_type,
            message=last.message,
            worker=last.worker,
            quarantined_at=quarantined_at,
        )

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        return to_dataclass(cls, load_versioned(content))


# values


def stage_totals_s(timings: tuple[StageTiming, ...]) -> dict[str, float]:
    """Seconds per stage, in the order in which the stages first appear."""
    return {
        stage: math.fsum(timing.duration_s for timing in timings if timing.stage == stage)
        for stage in dict.fromkeys(timing.stage for timing in timings)
    }


def utc_iso(seconds: float) -> str:
    """Seconds since the epoch as records write a time: 2026-01-31T12:00:00.000Z."""
    return (
        datetime.fromtimestamp(seconds, UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z")
    )


def check_time(name: str, text: str) -> None:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except ValueError as error:
        raise RecordError(f"{name} must be a time such as {utc_iso(0)}, not {text!r}") from error
    if offset != timedelta(0) or not text.endswith("Z"):
        raise RecordError(f"{name} must be in UTC, such as {utc_iso(0)}, not {text!r}")


def check_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise RecordError(f"{name} must be at least {least}, not {value}")
