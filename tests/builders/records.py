"""Records of clips that were never rendered, for tests of a store's content."""

import hashlib
from dataclasses import replace

from jobs.records.commit import commit_record, upload_clip
from jobs.records.keys import clip_key
from jobs.records.schema import (
    ClipRecord,
    FailureRecord,
    NagCoverage,
    QuarantineRecord,
    WorkerIdentity,
    utc_iso,
)
from jobs.records.scores.score_record import ScoreRecord
from jobs.settings.run_config import EncodingConfig
from jobs.store.store import Store
from jobs.types import ClipFailed, ClipSpec
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ONE_DEVICE
from tests.builders.specs import MODEL, spec

LONG_AGO = 1_000.0  # seconds since the epoch
AT_S = 1_769_860_800.0  # 2026-01-31T12:00:00Z
RUN_ID = "20260131-120000-abcdef"


def record_of(store: Store, body: bytes, clip_id: str) -> ClipRecord:
    """Return a record that names `body` as the MP4 of a clip."""
    sha256 = hashlib.sha256(body).hexdigest()
    key = clip_key(clip_id, sha256)
    return ClipRecord(
        clip_id=clip_id,
        name=f"spring-{clip_id[-2:]}",
        meta={},
        model=MODEL,
        request=spec("circle").request,
        tokens=spec("circle").tokens,
        parallel=ONE_DEVICE,
        run_id=RUN_ID,
        attempt=1,
        uri=store.uri_of(key),
        key=key,
        sha256=sha256,
        num_bytes=len(body),
        num_frames=5,
        width=32,
        height=32,
        fps=8.0,
        audio=None,
        committed_at=utc_iso(AT_S),
        timings=(),
        device_time=DeviceTime(2.0, 0.5),
        encoding=EncodingConfig(),
        worker=WorkerIdentity("host-a", "node-a", "cpu", 7),
        peak_memory_bytes=1_000_000,
        peak_memory_kind="host",
        host_memory_bytes=1_000_000,
        attention="fused",
        nag_coverage=NagCoverage(4, 4),
        versions={},
    )


def commit(store: Store, of: ClipSpec, body: bytes = b"video") -> ClipRecord:
    """Commit `body` as the MP4 of a clip of `specs.spec`, long ago, and return its record."""
    clip = upload_clip(store, of.clip_id, body, now=lambda: LONG_AGO)
    record = replace(record_of(store, body, of.clip_id), name=of.name, request=of.request)
    record = replace(record, tokens=of.tokens)
    assert commit_record(store, clip, record, now=lambda: LONG_AGO)
    return record


def failed(clip_id: str, message: str = "out of memory", attempt: int = 1) -> ClipFailed:
    return ClipFailed(
        clip_id=clip_id,
        name=f"spring-{clip_id[-2:]}",
        model=MODEL.name,
        request=spec("circle").request,
        attempt=attempt,
        failure_class="memory",
        may_pass_on_retry=True,
        error_type="OutOfMemoryError",
        message=message,
        traceback="",
        worker="host-a:7",
    )


def failure_of(
    clip_id: str, message: str = "out of memory", at_s: float = AT_S, attempt: int = 1
) -> FailureRecord:
    return FailureRecord.of(failed(clip_id, message, attempt), RUN_ID, utc_iso(at_s))


def quarantine_of(clip_id: str, message: str = "out of memory") -> QuarantineRecord:
    return QuarantineRecord.of(
        failed(clip_id, message), RUN_ID, "failed on 3 workers", utc_iso(AT_S)
    )


def score_of(clip_id: str, measure: str, digest: str, hour: int, **figures: float) -> ScoreRecord:
    return ScoreRecord(
        clip_id=clip_id,
        measure=measure,
        digest=digest * 16,
        source="a/b",
        revision="r",
        num_stills=4,
        question="",
        sha256="0" * 64,
        negatives=("red",),
        figures=figures,
        words={"there is red": "yes"},
        num_vectors=0,
        vectors="",
        scored_at=f"2026-01-31T{hour:02}:00:00.000Z",
        duration_s=0.5,
        device="cpu",
        versions={},
    )
