"""The audit finds each broken promise of an output and nothing else, in little memory."""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from infra.local.s3_server import LocalS3
from jobs.errors import ObjectMissingError, StoreRefusedError, StoreUnavailableError
from jobs.media.encode import encode_mp4
from jobs.records.commit import write_failure, write_quarantine
from jobs.records.keys import (
    clip_key,
    latents_key,
    poster_key,
    quarantine_key,
    record_key,
    refused_clip_key,
    thumbnail_key,
)
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import EncodingConfig, StoreConfig
from jobs.store.parts import WAITING_PER_THREAD, in_parallel
from jobs.store.store import Store, open_store
from jobs.store.uri import StoredObject
from jobs.types import ClipSpec
from jobs.upkeep.audit import AuditParams, ClipAudit, audit_output
from jobs.upkeep.findings import Finding, FindingKind
from pipelines.request import VideoFrames
from pipelines.texts import Tokens
from tests.builders.records import LONG_AGO, RUN_ID, commit, failure_of, quarantine_of, record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

START = 100_000.0
PARAMS = AuditParams(written_before=START - 10_000.0)
JSON, MP4 = "application/json", "video/mp4"
CIRCLE, SQUARE, HEART = spec("circle"), spec("square"), spec("heart")
OTHER_ID = "0" * 32


def audited(
    store: Store, planned: Iterable[ClipSpec] | None = None, params: AuditParams = PARAMS
) -> list[ClipAudit]:
    return list(audit_output(store, params, planned))


def findings(
    store: Store, planned: Iterable[ClipSpec] | None = None, params: AuditParams = PARAMS
) -> list[Finding]:
    return [finding for clip in audited(store, planned, params) for finding in clip.findings]


@pytest.fixture
def store() -> MemoryStore:
    """Return an old output: a circle committed, a heart quarantined with all of its failure."""
    store = MemoryStore(clock=lambda: LONG_AGO)
    record = commit(store, CIRCLE)
    for key in (poster_key, thumbnail_key):
        store.put(key(CIRCLE.clip_id, record.sha256), b"picture", "image/jpeg")
    store.put(refused_clip_key(HEART.clip_id, RUN_ID, 1), b"small", MP4)
    write_failure(store, failure_of(HEART.clip_id))
    store.put(latents_key(HEART.clip_id, RUN_ID, 1), b"latents", "application/octet-stream")
    write_quarantine(store, quarantine_of(HEART.clip_id))
    store.put("runs/run-1/run.json", b"{}", JSON)
    store.put("lease/0000000001.json", b"{}", JSON)
    return store


def test_a_good_output_has_no_finding(store: MemoryStore) -> None:
    assert findings(store) == []
    assert findings(store, [CIRCLE, HEART]) == []
    clips = {clip.clip_id: clip for clip in audited(store, [CIRCLE, HEART])}
    committed, quarantined = clips[CIRCLE.clip_id], clips[HEART.clip_id]
    assert committed.num_bytes == len(b"video")
    assert committed.is_committed
    assert quarantined.is_quarantined
    assert quarantined.is_planned
    assert not quarantined.is_committed


def test_an_empty_output_has_no_finding() -> None:
    assert audited(MemoryStore()) == []


# Each planted violation, with the kind and the text by which the audit reports it.
Plant = Callable[[MemoryStore, ClipRecord], None]


def no_mp4(store: MemoryStore, record: ClipRecord) -> None:
    store.delete(record.key)


def shorter_mp4(store: MemoryStore, record: ClipRecord) -> None:
    store.put(record.key, b"vide", MP4)


def longer_mp4(store: MemoryStore, record: ClipRecord) -> None:
    store.put(record.key, b"videos", MP4)


def other_bytes(store: MemoryStore, record: ClipRecord) -> None:
    store.put(record.key, b"vidEo", MP4)


def half_a_record(store: MemoryStore, record: ClipRecord) -> None:
    content = record.to_json()
    store.put(record_key(record.clip_id), content[: len(content) // 2], JSON)


def bytes_for_a_record(store: MemoryStore, record: ClipRecord) -> None:
    store.put(record_key(record.clip_id), b"\xff\x00\x1b[2J", JSON)


def another_clips_record(store: MemoryStore, record: ClipRecord) -> None:
    other = record_of(store, b"video", OTHER_ID)
    store.put(other.key, b"video", MP4)
    store.put(record_key(OTHER_ID), other.to_json(), JSON)
    store.put(record_key(record.clip_id), other.to_json(), JSON)


def other_tokens(store: MemoryStore, record: ClipRecord) -> None:
    tokens = replace(record.tokens, prompt=Tokens(2, "a triangle"))
    store.put(record_key(record.clip_id), replace(record, tokens=tokens).to_json(), JSON)


def another_seed(store: MemoryStore, record: ClipRecord) -> None:
    request = replace(record.request, sampling=replace(record.request.sampling, seed=99))
    store.put(record_key(record.clip_id), replace(record, request=request).to_json(), JSON)


def another_size(store: MemoryStore, record: ClipRecord) -> None:
    store.put(record_key(record.clip_id), replace(record, width=64).to_json(), JSON)


def half_a_quarantine(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(quarantine_key(HEART.clip_id), b'{"clip_id":', JSON)


def another_clips_quarantine(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(quarantine_key(HEART.clip_id), quarantine_of(OTHER_ID).to_json(), JSON)


def quarantine_without_reason(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(quarantine_key(HEART.clip_id), quarantine_of(HEART.clip_id, " ").to_json(), JSON)


def second_mp4(store: MemoryStore, record: ClipRecord) -> None:
    store.put(clip_key(record.clip_id, "f" * 64), b"other", MP4)


def mp4_without_record(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(clip_key(SQUARE.clip_id, "f" * 64), b"other", MP4)


def quarantine_of_a_committed_clip(store: MemoryStore, record: ClipRecord) -> None:
    write_quarantine(store, quarantine_of(record.clip_id))


def latents_of_a_committed_clip(store: MemoryStore, record: ClipRecord) -> None:
    write_failure(store, failure_of(record.clip_id))
    store.put(latents_key(record.clip_id, RUN_ID, 1), b"latents", MP4)


def latents_without_failure(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(latents_key(HEART.clip_id, RUN_ID, 2), b"latents", MP4)


def poster_of_another_mp4(store: MemoryStore, record: ClipRecord) -> None:
    store.put(poster_key(record.clip_id, "f" * 64), b"picture", "image/jpeg")


def thumbnail_without_record(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(thumbnail_key(SQUARE.clip_id, "f" * 64), b"picture", "image/jpeg")


def refused_mp4_without_failure(store: MemoryStore, _record: ClipRecord) -> None:
    store.put(refused_clip_key(HEART.clip_id, RUN_ID, 2), b"small", MP4)


def left_over_access_check(store: MemoryStore, _record: ClipRecord) -> None:
    store.put("access-check-0123456789abcdef", b"check", "text/plain")


def foreign_record(store: MemoryStore, _record: ClipRecord) -> None:
    store.put("records/README.txt", b"", "text/plain")


def foreign_clip(store: MemoryStore, record: ClipRecord) -> None:
    store.put(f"clips/{record.clip_id}/preview.gif", b"", "image/gif")


PLANTS: dict[Plant, tuple[FindingKind, str]] = {
    no_mp4: ("missing", "is missing and a record names it"),
    shorter_mp4: ("damaged", "expected 5 bytes, got 4"),
    longer_mp4: ("damaged", "expected 5 bytes, got more"),
    other_bytes: ("damaged", "expected SHA-256"),
    half_a_record: ("unreadable", f"records/{CIRCLE.clip_id}.json: "),
    bytes_for_a_record: ("unreadable", f"records/{CIRCLE.clip_id}.json: "),
    another_clips_record: ("mismatched", f"describes another clip, {OTHER_ID}"),
    other_tokens: ("mismatched", "its model, request and tokens are those of clip"),
    another_seed: ("mismatched", "its model, request and tokens are those of clip"),
    another_size: ("mismatched", "frames, size or rate differ from its request"),
    half_a_quarantine: ("unreadable", f"quarantine/{HEART.clip_id}.json: "),
    another_clips_quarantine: ("mismatched", f"describes another clip, {OTHER_ID}"),
    quarantine_without_reason: ("mismatched", "gives no reason"),
    second_mp4: ("orphan", "no record names this MP4"),
    mp4_without_record: ("orphan", "no record names this MP4"),
    quarantine_of_a_committed_clip: ("orphan", "committed since"),
    latents_of_a_committed_clip: ("orphan", "latents"),
    latents_without_failure: ("orphan", "latents"),
    poster_of_another_mp4: ("orphan", "a poster or thumbnail of an MP4 that no record names"),
    thumbnail_without_record: ("orphan", "a poster or thumbnail of an MP4 that no record names"),
    refused_mp4_without_failure: ("orphan", "a refused MP4"),
    left_over_access_check: ("orphan", "access-check-0123456789abcdef"),
    foreign_record: ("orphan", "records/README.txt"),
    foreign_clip: ("orphan", "preview.gif"),
}


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_each_violation_is_found(plant: Plant, store: MemoryStore) -> None:
    plant(store, ClipRecord.from_json(store.get(record_key(CIRCLE.clip_id))))
    kind, text = PLANTS[plant]
    assert [one for one in findings(store) if one.kind == kind and text in one.message]


@pytest.mark.parametrize(
    "plant",
    [plant for plant, (kind, _) in PLANTS.items() if kind == "orphan"],
    ids=lambda plant: plant.__name__,
)
def test_a_young_object_is_in_flight_and_not_an_orphan(plant: Plant, store: MemoryStore) -> None:
    record = ClipRecord.from_json(store.get(record_key(CIRCLE.clip_id)))
    store.now = lambda: START
    plant(store, record)
    assert findings(store) == []
    assert sum(clip.num_young for clip in audited(store)) == 1


def test_no_mp4_of_a_clip_with_a_damaged_record_is_called_an_orphan(store: MemoryStore) -> None:
    second_mp4(store, record_of(store, b"video", CIRCLE.clip_id))
    store.put(record_key(CIRCLE.clip_id), b"{}", JSON)
    assert [one.kind for one in findings(store)] == ["unreadable"]


def test_a_clip_of_the_plan_without_record_and_quarantine_is_lost(store: MemoryStore) -> None:
    (lost,) = findings(store, [CIRCLE, SQUARE, HEART])
    assert (lost.kind, lost.clip_id) == ("lost", SQUARE.clip_id)
    assert lost.message == f"{SQUARE.name} ({SQUARE.clip_id})"


def test_a_committed_or_quarantined_clip_outside_the_plan_is_unplanned(store: MemoryStore) -> None:
    unplanned = findings(store, [])
    assert {one.kind for one in unplanned} == {"unplanned"}
    assert {one.clip_id for one in unplanned} == {CIRCLE.clip_id, HEART.clip_id}


def test_a_hostile_key_in_a_record_is_not_followed(store: MemoryStore) -> None:
    record = record_of(store, b"video", CIRCLE.clip_id)
    content = record.to_json().replace(record.key.encode(), b"../../etc/passwd")
    store.put(record_key(CIRCLE.clip_id), content, JSON)
    assert [one.kind for one in findings(store)] == ["unreadable"]


def test_decoding_proves_frames_and_tag_of_a_clip(tmp_path: Path) -> None:
    def mp4(tag: str) -> bytes:
        frames = np.full((5, 32, 32, 3), 90, np.uint8)
        config = EncodingConfig(preset="ultrafast")
        encode_mp4(VideoFrames(frames, 8.0), tmp_path / "clip.mp4", config, {"clip_id": tag})
        return (tmp_path / "clip.mp4").read_bytes()

    store = MemoryStore(clock=lambda: LONG_AGO)
    commit(store, CIRCLE, mp4(CIRCLE.clip_id))
    commit(store, SQUARE, mp4(CIRCLE.clip_id))
    commit(store, HEART, b"video")
    assert findings(store) == []
    by_clip = {one.clip_id: one for one in findings(store, params=replace(PARAMS, decodes=True))}
    assert set(by_clip) == {SQUARE.clip_id, HEART.clip_id}
    assert by_clip[SQUARE.clip_id].kind == "mismatched"
    assert f"got {CIRCLE.clip_id!r}" in by_clip[SQUARE.clip_id].message
    assert by_clip[HEART.clip_id].kind == "undecodable"


class PartlyUnreadableStore(MemoryStore):
    """A store that raises an error for one object."""

    def __init__(self, error: Exception) -> None:
        super().__init__(clock=lambda: LONG_AGO)
        self.error = error
        self.broken = ""

    def chunks(self, key: str) -> Iterator[bytes]:
        if key == self.broken:
            raise self.error
        return super().chunks(key)


def test_an_object_that_breaks_off_again_and_again_is_unreadable() -> None:
    store = PartlyUnreadableStore(StoreUnavailableError("the body breaks off"))
    store.broken = commit(store, CIRCLE).key
    (found,) = findings(store)
    assert (found.kind, found.key) == ("unreadable", store.broken)
    assert "the body breaks off" in found.message


def test_an_object_that_the_store_refuses_is_unreadable_if_others_are_read() -> None:
    store = PartlyUnreadableStore(StoreRefusedError("leads out of it"))
    store.broken = commit(store, CIRCLE).key
    assert [one.kind for one in findings(store)] == ["unreadable"]


def test_a_store_that_refuses_the_first_read_ends_the_audit() -> None:
    store = PartlyUnreadableStore(StoreRefusedError("AccessDenied"))
    store.broken = record_key(commit(store, CIRCLE).clip_id)
    with pytest.raises(StoreRefusedError, match="AccessDenied"):
        findings(store)


def test_a_store_that_is_down_ends_the_audit(store: MemoryStore) -> None:
    store.troubles.extend([None] * 6)  # the six listings
    for _ in range(40):
        store.troubles.append("unavailable")
    with pytest.raises(StoreUnavailableError):
        findings(store)


def test_a_store_that_lists_out_of_order_is_refused() -> None:
    class UnorderedStore(MemoryStore):
        def entries(self, prefix: str) -> Iterator[StoredObject]:
            return reversed(list(super().entries(prefix)))

    store = UnorderedStore(clock=lambda: LONG_AGO)
    commit(store, CIRCLE)
    commit(store, SQUARE)
    with pytest.raises(StoreRefusedError, match="does not list its keys in order"):
        findings(store)


def test_results_come_in_order_and_few_items_are_taken_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_parallel(lambda number: number * 2, items(), num_threads=2)
    assert next(results) == 0
    assert len(taken) <= 2 * WAITING_PER_THREAD
    assert list(results) == [number * 2 for number in range(1, 1000)]


class StreamingStore:
    """A store of many clips that makes each object when it is read; most records are damaged."""

    uri = "memory://many"

    def __init__(self, num_clips: int) -> None:
        self.num_clips = num_clips
        inner = MemoryStore()
        self.record = record_of(inner, b"video", OTHER_ID).to_json()

    def ids(self) -> Iterator[str]:
        return (f"{number:032x}" for number in range(self.num_clips))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        for clip_id in self.ids():
            if prefix == "records/":
                yield StoredObject(record_key(clip_id), 2, LONG_AGO)
            elif prefix == "clips/":
                yield StoredObject(clip_key(clip_id, "f" * 64), 5, LONG_AGO)

    def chunks(self, key: str) -> Iterator[bytes]:
        if key.startswith("clips/"):
            yield b"video"
        else:
            yield self.record if key.endswith("00.json") else b"{}"

    def exists(self, key: str) -> bool:
        return True


def test_memory_does_not_grow_with_the_number_of_clips() -> None:
    """Counts Python's allocated blocks, since tracemalloc makes the audit seven times slower."""
    num_clips, num_findings = 30_000, 0
    blocks: list[int] = []
    store = StreamingStore(num_clips)
    for number, clip in enumerate(audit_output(store, PARAMS)):  # type: ignore[arg-type]
        num_findings += len(clip.findings)
        if number % 1000 == 999:
            blocks.append(sys.getallocatedblocks())
    assert num_findings >= num_clips
    assert max(blocks[2:]) - blocks[1] < num_clips // 10, "a block for each clip would be 27,000"


@pytest.mark.s3
def test_an_output_on_s3_is_audited(s3_environment: LocalS3) -> None:
    store = open_store("s3://renders/audited", StoreConfig())
    large = hashlib.sha256(b"seed").digest() * 100_000  # 3.2 MB, several pieces
    good, damaged = commit(store, CIRCLE, large), commit(store, SQUARE, large + b"1")
    store.put(damaged.key, large + b"2", MP4)
    store.put(clip_key(HEART.clip_id, "f" * 64), b"other", MP4)
    far = AuditParams(written_before=4e9)
    assert {(one.kind, one.clip_id) for one in findings(store, [CIRCLE, SQUARE], far)} == {
        ("damaged", SQUARE.clip_id),
        ("orphan", HEART.clip_id),
    }
    store.delete(good.key)
    with pytest.raises(ObjectMissingError):
        store.get(good.key)
    assert "missing" in {one.kind for one in findings(store, params=far)}
