"""The audit finds every violation that is planted in a folder store, and passes a good store."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.local.s3_server import LocalS3
from infra.local.s3_versions import count_writes, enable_versions
from jobs.errors import ObjectExistsError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.media.encode import encode_mp4
from jobs.records.commit import commit_record, upload_clip, write_quarantine
from jobs.records.keys import clip_key, record_key
from jobs.records.schema import ClipRecord, NagCoverage, QuarantineRecord, WorkerIdentity
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.store import Store, open_store
from jobs.store.uri import S3Location
from jobs.types import ClipFailed, ClipSpec
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ONE_DEVICE
from pipelines.request import VideoFrames
from tests.chaos.harness.audit import Audit, audit
from tests.chaos.harness.workload import Workload, write_models

AT = "2026-01-31T12:00:00.000Z"


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[ClipSpec]:
    folder = tmp_path_factory.mktemp("chaos")
    catalog = ModelCatalog(write_models(folder / "models"))
    return list(
        open_manifest(Workload(3).write(folder / "rows.jsonl"), catalog, model="stand-in").specs()
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "out").as_uri(), StoreConfig())


@pytest.fixture
def good(store: Store, specs: list[ClipSpec], tmp_path: Path) -> Store:
    """Return a store with two clips committed and one quarantined."""
    for spec in specs[:2]:
        commit(store, spec, mp4(tmp_path, spec))
    write_quarantine(store, quarantine(specs[2]))
    return store


def once(specs: list[ClipSpec]) -> dict[str, int]:
    return {record_key(spec.clip_id): 1 for spec in specs}


def mp4(folder: Path, spec: ClipSpec) -> bytes:
    shape = spec.request.shape
    level = spec.request.sampling.seed * 40 + 50
    frames = np.full((shape.num_frames, shape.height, shape.width, 3), level, np.uint8)
    path = folder / "clip.mp4"
    video, config = VideoFrames(frames, spec.request.fps), EncodingConfig(preset="ultrafast")
    encode_mp4(video, path, config, {"clip_id": spec.clip_id})
    return path.read_bytes()


def commit(store: Store, spec: ClipSpec, body: bytes) -> ClipRecord:
    clip = upload_clip(store, spec.clip_id, body)
    shape = spec.request.shape
    record = ClipRecord(
        clip_id=spec.clip_id,
        name=spec.name,
        meta=spec.meta,
        model=spec.model,
        request=spec.request,
        tokens=spec.tokens,
        parallel=ONE_DEVICE,
        run_id="run",
        attempt=1,
        uri=clip.uri,
        key=clip.key,
        sha256=clip.sha256,
        num_bytes=clip.num_bytes,
        num_frames=shape.num_frames,
        width=shape.width,
        height=shape.height,
        fps=spec.request.fps,
        audio=None,
        committed_at=AT,
        timings=(),
        device_time=DeviceTime(1.0, 0.0),
        encoding=EncodingConfig(),
        worker=WorkerIdentity("host", "node", "stand-in", 1),
        peak_memory_bytes=0,
        peak_memory_kind="host",
        host_memory_bytes=1,
        attention="fused",
        nag_coverage=NagCoverage(1, 1),
        versions={},
    )
    commit_record(store, clip, record)
    return record


def quarantine(spec: ClipSpec, reason: str = "it failed twice") -> QuarantineRecord:
    failed = ClipFailed(
        clip_id=spec.clip_id,
        name=spec.name,
        attempt=2,
        failure_class="clip",
        may_pass_on_retry=True,
        error_type="FrameCheckError",
        message="black",
        traceback="",
        worker="host:1",
    )
    return QuarantineRecord.of(failed, "run", reason, AT)


def test_a_good_store_is_clean(good: Store, specs: list[ClipSpec]) -> None:
    found = audit(good, specs, once(specs))
    assert found == Audit(3, 2, 1, (), (), (), ())
    assert found.is_clean


def test_a_clip_that_is_neither_committed_nor_quarantined_is_lost(
    good: Store, specs: list[ClipSpec]
) -> None:
    good.delete(record_key(specs[0].clip_id))
    found = audit(good, specs, once(specs))
    assert found.lost == (f"{specs[0].name} ({specs[0].clip_id})",)
    assert not found.is_clean


def test_a_record_that_was_written_twice_is_a_duplicate(good: Store, specs: list[ClipSpec]) -> None:
    found = audit(good, specs, once(specs) | {record_key(specs[0].clip_id): 2})
    assert len(found.duplicated) == 1
    assert specs[0].clip_id in found.duplicated[0]
    assert not found.is_clean


def test_a_record_without_a_known_history_is_not_clean(good: Store, specs: list[ClipSpec]) -> None:
    assert len(audit(good, specs, {}).duplicated) == 2


@pytest.mark.s3
def test_a_bucket_with_versions_counts_every_write_and_deletion_of_a_record(
    no_aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalS3("versions") as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        enable_versions(server.endpoint_url, "versions")
        store = open_store("s3://versions/night", StoreConfig())
        store.put_if_absent("records/once.json", b"{}", "application/json")
        store.put("records/twice.json", b"{}", "application/json")
        store.put("records/twice.json", b"{}", "application/json")
        store.put_if_absent("records/again.json", b"{}", "application/json")
        store.delete("records/again.json")
        store.put_if_absent("records/again.json", b"{}", "application/json")
        with pytest.raises(ObjectExistsError):
            store.put_if_absent("records/once.json", b"other", "application/json")
        assert count_writes(server.endpoint_url, S3Location("versions", "night")) == {
            "records/once.json": 1,
            "records/twice.json": 2,
            "records/again.json": 3,
        }


def test_a_process_that_outlives_its_run_is_an_orphan(good: Store, specs: list[ClipSpec]) -> None:
    found = audit(good, specs, once(specs), ["ray::RenderActor (1)"])
    assert found.violations == ("orphan: ray::RenderActor (1)",)


def other_bytes(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    store.put(record.key, mp4(folder, spec) + b"", "video/mp4")
    changed = bytearray(store.get(record.key))
    changed[-1] ^= 1
    store.put(record.key, bytes(changed), "video/mp4")


def half_a_clip(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    body = mp4(folder, spec)
    store.delete(record_key(spec.clip_id))
    commit(store, spec, body[: len(body) // 2])


def no_clip(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    store.delete(record.key)


def another_clips_record(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    other = "0" * 32
    text = record.to_json().replace(spec.clip_id.encode(), other.encode())
    store.put(clip_key(other, record.sha256), store.get(record.key), "video/mp4")
    store.put(record_key(spec.clip_id), text, "application/json")


def another_seed(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    sampling = replace(spec.request.sampling, seed=99)
    other = replace(record, request=replace(spec.request, sampling=sampling))
    store.put(record_key(spec.clip_id), other.to_json(), "application/json")


def half_a_record(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    text = record.to_json()
    store.put(record_key(spec.clip_id), text[: len(text) // 2], "application/json")


def a_stranger(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    store.put(record_key("f" * 32), record.to_json(), "application/json")


def no_reason(store: Store, spec: ClipSpec, folder: Path, record: ClipRecord) -> None:
    store.delete(record_key(spec.clip_id))
    write_quarantine(store, quarantine(spec, reason=" "))


Plant = Callable[[Store, ClipSpec, Path, ClipRecord], None]
PLANTS: dict[Plant, str] = {
    other_bytes: "expected SHA-256",
    half_a_clip: "is not the requested clip",
    no_clip: "is missing and a record names it",
    another_clips_record: "describes another clip",
    another_seed: "its model, request and tokens are those of clip",
    half_a_record: "not valid JSON",
    a_stranger: "not in the plan",
    no_reason: "gives no reason",
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_record_that_contradicts_its_object_is_found(
    plant: Plant, store: Store, specs: list[ClipSpec], tmp_path: Path
) -> None:
    record = commit(store, specs[0], mp4(tmp_path, specs[0]))
    assert audit(store, specs[:1], once(specs)).is_clean
    plant(store, specs[0], tmp_path, record)
    found = audit(store, specs[:1], once(specs))
    assert any(PLANTS[plant] in text for text in found.mismatched), found
    assert not found.is_clean
