"""The records that lie in the store beside the clips: their fields and their JSON.

Decides what a record may hold; docs/reference/records.md explains each field, `keys` says where
each record lies and `commit` when it is written. A reader refuses records of another version.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, Self

from jobs.errors import RecordError
from jobs.records.keys import check_clip_id, check_run_id, clip_key
from jobs.records.strict_json import dump, from_dataclass, load, to_dataclass
from jobs.settings.run_config import EncodingConfig
from jobs.types import AudioFacts, ClipFailure, FailedAttempt, ModelIdentity, StageTiming, fields_of
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest
from pipelines.texts import RequestTokens

SCHEMA_VERSION = 1  # release 0.1; any change of the fields or of their meaning raises it


@dataclass(frozen=True)
class WorkerIdentity:
    """The process that made a clip, and its device."""

    host: str
    node_id: str
    device: str
    pid: int


@dataclass(frozen=True)
class NagCoverage:
    """The number of the model's text cross-attentions that NAG guides, and of all of them."""

    guided: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.guided <= self.total:
            raise RecordError(f"guided must be 0 to total, not {self.guided} of {self.total}")

    def __str__(self) -> str:
        return f"{self.guided} of {self.total}"


@dataclass(frozen=True)
class ClipRecord:
    """The record of a committed clip: its request, its MP4, and the cost of making it."""

    clip_id: str
    name: str
    meta: Mapping[str, str]
    model: ModelIdentity
    request: GenerationRequest
    tokens: RequestTokens
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
    audio: AudioFacts | None
    committed_at: str
    timings: tuple[StageTiming, ...]
    device_time: DeviceTime
    encoding: EncodingConfig
    worker: WorkerIdentity
    peak_memory_bytes: int
    peak_memory_kind: Literal["device", "host"]
    host_memory_bytes: int
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
        check_at_least("host_memory_bytes", self.host_memory_bytes, 0)
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise RecordError(f"fps must be above 0, not {self.fps}")
        if self.audio is not None:
            check_at_least("audio.sample_rate", self.audio.sample_rate, 1)
            check_at_least("audio.channels", self.audio.channels, 1)

    def committed(self, at: str, upload: StageTiming) -> Self:
        """Return the record for the store: with the time of the commit and the upload's timing."""
        return replace(self, committed_at=at, timings=(*self.timings, upload))

    @property
    def stage_totals_s(self) -> dict[str, float]:
        """Seconds per stage, the steps of a stage added up."""
        return stage_totals_s(self.timings)

    def to_json(self) -> bytes:
        return dump({**from_dataclass(self), "stage_totals_s": self.stage_totals_s})

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read a record.

        Raises:
            RecordError: when it is damaged or has another schema version.
        """
        document = load_versioned(content)
        totals = document.pop("stage_totals_s", None)
        record = to_dataclass(cls, document)
        if totals != record.stage_totals_s:
            raise RecordError("stage_totals_s must be the sums of timings")
        return record


@dataclass(frozen=True, kw_only=True)
class FailureRecord(FailedAttempt):
    """The reason why one attempt at a clip ended without a record."""

    run_id: str
    failed_at: str
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_run_id(self.run_id)
        check_time("failed_at", self.failed_at)
        check_at_least("attempt", self.attempt, 1)

    @classmethod
    def of(cls, failed: FailedAttempt, run_id: str, failed_at: str) -> Self:
        return cls(**fields_of(FailedAttempt, failed), run_id=run_id, failed_at=failed_at)

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        return to_dataclass(cls, load_versioned(content))


@dataclass(frozen=True, kw_only=True)
class QuarantineRecord(ClipFailure):
    """The last failure of a clip that no run tries again until `retry` lifts the quarantine."""

    run_id: str
    reason: str
    num_attempts: int
    worker: str
    quarantined_at: str
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_run_id(self.run_id)
        check_time("quarantined_at", self.quarantined_at)
        check_at_least("num_attempts", self.num_attempts, 0)

    @classmethod
    def of(cls, last: ClipFailure, run_id: str, reason: str, quarantined_at: str) -> Self:
        """Build the record from the last failed attempt, or from the reason why there was none."""
        is_tried = isinstance(last, FailedAttempt)
        return cls(
            **fields_of(ClipFailure, last),
            run_id=run_id,
            reason=reason,
            num_attempts=last.attempt if is_tried else 0,
            worker=last.worker if is_tried else "",
            quarantined_at=quarantined_at,
        )

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        return to_dataclass(cls, load_versioned(content))


def load_versioned(content: bytes) -> dict[str, Any]:
    """Read the JSON object of a record.

    Raises:
        RecordError: when it is damaged or has another schema version.
    """
    document = load(content)
    version = document.get("schema_version")
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RecordError(
            f"schema_version must be {SCHEMA_VERSION}, not {version!r}: another version of nagfarm "
            "wrote this record; read it with that version"
        )
    return document


def stage_totals_s(timings: tuple[StageTiming, ...]) -> dict[str, float]:
    """Return the seconds of each stage, in the order in which the stages first appear."""
    return {
        stage: math.fsum(timing.duration_s for timing in timings if timing.stage == stage)
        for stage in dict.fromkeys(timing.stage for timing in timings)
    }


def utc_iso(seconds: float) -> str:
    """Format seconds since the epoch as records write a time: 2026-01-31T12:00:00.000Z."""
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
