"""Uploaded images and videos: damaged ones are found with their clips, unused ones are removed."""

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from jobs.clip_id import clip_id as clip_id_of
from jobs.digests import Sha256Set
from jobs.records.commit import read_record, write_failure, write_quarantine
from jobs.records.input_files import write_input
from jobs.records.keys import failure_key, input_key, quarantine_key, record_key
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.types import ClipSpec
from jobs.upkeep.audit import AuditParams, audit_output
from jobs.upkeep.findings import Finding
from jobs.upkeep.garbage import Removed
from jobs.upkeep.input_garbage import find_unnamed_inputs, remove_unnamed_inputs
from pipelines.clip_inputs import InputFile, InputFiles
from tests.builders.records import LONG_AGO, commit, failure_of, quarantine_of
from tests.builders.specs import MODEL, spec
from tests.fakes.store import MemoryStore

NOW_S, DAY_S = 1_769_860_800.0, 86_400.0
PARAMS = AuditParams(written_before=0.0)
BODIES = {name: name.encode() for name in ("a.png", "b.png", "c.mp4", "d.png")}


def file(name: str) -> InputFile:
    return InputFile(hashlib.sha256(BODIES[name]).hexdigest(), name)


def key_of(name: str) -> str:
    return input_key(file(name).sha256)


def clip(prompt: str, inputs: InputFiles) -> ClipSpec:
    of = spec(prompt)
    request = replace(of.request, inputs=inputs)
    return replace(of, request=request, clip_id=clip_id_of(MODEL, request, of.tokens))


FROM_A = clip("circle", InputFiles(image=file("a.png"), last_image=file("b.png")))
FROM_C = clip("square", InputFiles(video=file("c.mp4"), reference_images=(file("a.png"),)))
FROM_D = clip("heart", InputFiles(image=file("d.png")))


def upload(store: Store, *names: str) -> None:
    for name in names or BODIES:
        write_input(store, file(name).sha256, BODIES[name])


@pytest.fixture
def store() -> MemoryStore:
    """Return an output of long ago: a clip committed, one quarantined, and all their inputs."""
    store = MemoryStore(clock=lambda: LONG_AGO)
    commit(store, FROM_A)
    quarantined = replace(quarantine_of(FROM_C.clip_id), request=FROM_C.request)
    write_quarantine(store, quarantined)
    upload(store, "a.png", "b.png", "c.mp4")
    store.clock = lambda: NOW_S
    return store


# verify


def findings(store: Store, *planned: ClipSpec) -> list[Finding]:
    audited = audit_output(store, PARAMS, planned or None)
    found = [finding for one in audited for finding in one.findings]
    return [one for one in found if one.kind != "lost"]


def test_whole_inputs_are_no_finding_and_their_bytes_are_counted(store: MemoryStore) -> None:
    assert findings(store) == []
    num_bytes = sum(one.num_bytes for one in audit_output(store, PARAMS))
    assert num_bytes == len(b"video") + 3 * len(b"a.png")


def test_a_missing_and_a_damaged_input_are_told_with_each_clip_that_names_them(
    store: MemoryStore,
) -> None:
    store.delete(key_of("a.png"))
    store.put(key_of("c.mp4"), b"C.mp4", "video/mp4")
    found = findings(store)
    assert {(one.kind, one.clip_id, one.key) for one in found} == {
        ("input", FROM_A.clip_id, key_of("a.png")),
        ("input", FROM_C.clip_id, key_of("a.png")),
        ("input", FROM_C.clip_id, key_of("c.mp4")),
    }
    texts = {(one.clip_id, one.key): one.message for one in found}
    committed = texts[FROM_A.clip_id, key_of("a.png")]
    assert committed.startswith(f"{key_of('a.png')} (a.png) is missing; the clip is whole")
    damaged = texts[FROM_C.clip_id, key_of("c.mp4")]
    assert "(c.mp4) has other bytes than those of its digest: remove it; a run with" in damaged


def test_a_pending_clip_of_the_manifest_is_told_of_its_inputs(store: MemoryStore) -> None:
    store.put(key_of("d.png"), b"other", "image/png")
    (alone,) = findings(store)
    assert (alone.clip_id, alone.key) == ("", key_of("d.png")), "no clip of the output names it"
    (found,) = findings(store, FROM_A, FROM_C, FROM_D)
    assert (found.kind, found.clip_id, found.key) == ("input", FROM_D.clip_id, key_of("d.png"))
    store.delete(key_of("d.png"))
    (found,) = findings(store, FROM_A, FROM_C, FROM_D)
    assert "(d.png) is missing; a run with the first file" in found.message


def test_an_input_that_is_uploaded_after_the_listing_is_whole(store: MemoryStore) -> None:
    audited = audit_output(store, PARAMS, [FROM_A, FROM_C, FROM_D])
    next(audited)  # the first input was read, so all are listed
    upload(store, "d.png")
    assert not [one for clip in audited for one in clip.findings if one.kind == "input"]


# gc


def unnamed(store: Store, *kept: str, older_than_s: float = DAY_S) -> set[str]:
    spared = Sha256Set()
    for name in kept:
        spared.add(file(name).sha256)
    return {one.stored.key for one in find_unnamed_inputs(store, older_than_s, spared).garbage}


def removed(
    store: Store, before_each: Callable[[], None] = lambda: None, older_than_s: float = DAY_S
) -> Removed:
    found = find_unnamed_inputs(store, older_than_s, Sha256Set()).garbage
    return remove_unnamed_inputs(store, found, older_than_s, before_each)


def uploaded_long_ago(store: MemoryStore, *names: str) -> None:
    store.clock = lambda: LONG_AGO
    upload(store, *names)
    store.clock = lambda: NOW_S


def test_an_old_input_that_no_clip_names_is_garbage_and_a_young_or_kept_one_is_not(
    store: MemoryStore,
) -> None:
    assert unnamed(store) == set()
    upload(store, "d.png")
    assert unnamed(store) == set(), "young"
    store.delete(key_of("d.png"))
    uploaded_long_ago(store, "d.png")
    before = set(store.keys(""))
    assert unnamed(store, "d.png") == set(), "a manifest names it"
    assert unnamed(store) == {key_of("d.png")}
    assert set(store.keys("")) == before
    assert removed(store) == Removed(1, len(BODIES["d.png"]), 0)
    assert set(store.keys("")) == before - {key_of("d.png")}


def test_records_quarantines_and_failures_each_keep_the_inputs_that_they_name(
    store: MemoryStore,
) -> None:
    uploaded_long_ago(store, "d.png")
    store.delete(quarantine_key(FROM_C.clip_id))
    assert unnamed(store) == {key_of("c.mp4"), key_of("d.png")}
    failure = replace(failure_of(FROM_D.clip_id), request=FROM_D.request)
    write_failure(store, failure)
    assert unnamed(store) == {key_of("c.mp4")}
    store.delete(record_key(FROM_A.clip_id))
    assert unnamed(store) == {key_of(name) for name in ("a.png", "b.png", "c.mp4")}
    store.delete(failure_key(FROM_D.clip_id, failure.run_id, failure.attempt))
    assert len(unnamed(store)) == 4


def test_a_record_of_another_version_keeps_its_inputs_and_a_damaged_one_keeps_all(
    store: MemoryStore,
) -> None:
    uploaded_long_ago(store, "d.png")
    content = read_record(store, FROM_A.clip_id).to_json()
    newer = content.replace(b'"schema_version": 1', b'"schema_version": 99')
    assert newer != content
    store.put(record_key(FROM_A.clip_id), newer, "application/json")
    assert unnamed(store) == {key_of("d.png")}
    store.put(record_key(FROM_A.clip_id), content[:-40], "application/json")
    found = find_unnamed_inputs(store, DAY_S, Sha256Set())
    assert found.garbage == ()
    assert found.unreadable
    assert found.unreadable.startswith(f"{record_key(FROM_A.clip_id)}: not valid JSON")


@pytest.mark.parametrize("change", ["a record", "a new upload", "gone", "damage"])
def test_an_input_that_a_run_took_after_the_first_look_stays(
    change: str, store: MemoryStore
) -> None:
    uploaded_long_ago(store, "d.png")

    def meanwhile() -> None:
        if change == "a record" and not store.exists(record_key(FROM_D.clip_id)):
            commit(store, FROM_D)
        elif change == "a new upload":
            store.put(key_of("d.png"), BODIES["d.png"], "image/png")
        elif change == "gone":
            store.delete(key_of("d.png"))
        elif change == "damage":
            store.put(record_key("0" * 32), b"{", "application/json")

    found = find_unnamed_inputs(store, DAY_S, Sha256Set()).garbage
    meanwhile()
    assert remove_unnamed_inputs(store, found, DAY_S, lambda: None) == Removed(0, 0, 1)
    assert store.exists(key_of("d.png")) == (change != "gone")


@pytest.mark.s3
def test_inputs_on_s3_are_verified_and_removed(s3_environment: object) -> None:
    store = open_store(f"s3://renders/{uuid.uuid4().hex}", StoreConfig(max_attempts=2))
    commit(store, FROM_A)
    upload(store)
    store.put(key_of("b.png"), b"other", "image/png")
    assert {(one.kind, one.key) for one in findings(store)} == {("input", key_of("b.png"))}
    assert unnamed(store) == set(), "young"
    assert unnamed(store, older_than_s=0) == {key_of("c.mp4"), key_of("d.png")}
    assert removed(store, older_than_s=0).num_removed == 2
    assert set(store.keys("inputs/")) == {key_of("a.png"), key_of("b.png")}
