"""Garbage in an output: all of it is found, and no other object is ever removed."""

import hashlib
import os
import tempfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import LeaseLostError
from jobs.records.commit import commit_record, upload_clip
from jobs.records.keys import (
    input_key,
    poster_key,
    record_key,
    refused_clip_key,
    thumbnail_key,
)
from jobs.report.scripts import script
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_store import FolderStore
from jobs.store.store import Store, open_store
from jobs.store.uri import FolderLocation
from jobs.upkeep.garbage import Removed, find_garbage, remove_garbage
from tests.builders.records import record_of

NOW_S = 1_769_860_800.0
DAY_S = 86_400.0
OLD_S, YOUNG_S = NOW_S - 2 * DAY_S, NOW_S - 60
TEXT = "text/plain"


def nothing() -> None:
    pass


class AgedStore(FolderStore):
    """A folder store whose objects have the age that a test sets, and a clock that stands still."""

    def now(self) -> float:
        return NOW_S

    def put_aged(self, key: str, body: bytes, age: float) -> str:
        self.put(key, body, TEXT)
        os.utime(self.location.path / key, (age, age))
        return key


@pytest.fixture
def store(tmp_path: Path) -> AgedStore:
    return AgedStore(FolderLocation(tmp_path / "store"))


def clip_id(number: int) -> str:
    return f"{number:032x}"


def add_mp4(store: AgedStore, number: int, body: bytes, age: float) -> str:
    return store.put_aged(record_of(store, body, clip_id(number)).key, body, age)


def add_pictures(store: AgedStore, number: int, body: bytes, age: float) -> set[str]:
    """Write poster and thumbnail of an MP4; return their keys."""
    sha256 = hashlib.sha256(body).hexdigest()
    keys = [key(clip_id(number), sha256) for key in (poster_key, thumbnail_key)]
    return {store.put_aged(key, b"picture", age) for key in keys}


def add_record(store: AgedStore, number: int, body: bytes, age: float = OLD_S) -> str:
    return store.put_aged(
        record_key(clip_id(number)), record_of(store, body, clip_id(number)).to_json(), age
    )


def found(store: Store) -> set[str]:
    return {one.stored.key for one in find_garbage(store, DAY_S)}


def removed(store: Store, before_each: Callable[[], None] = nothing) -> Removed:
    return remove_garbage(store, find_garbage(store, DAY_S), DAY_S, before_each)


# finding garbage


def test_an_mp4_without_a_record_is_garbage_once_it_is_old(store: AgedStore) -> None:
    old = add_mp4(store, 1, b"old", OLD_S)
    young = add_mp4(store, 2, b"young", YOUNG_S)
    assert found(store) == {old}
    assert removed(store) == Removed(1, 3, 0)
    assert list(store.keys("")) == [young]


def test_a_second_mp4_beside_the_one_that_a_record_names_is_garbage(store: AgedStore) -> None:
    named, loser = add_mp4(store, 1, b"named", OLD_S), add_mp4(store, 1, b"loser", OLD_S)
    record = add_record(store, 1, b"named")
    assert found(store) == {loser}
    removed(store)
    assert set(store.keys("")) == {named, record}


def test_the_only_mp4_of_a_committed_clip_is_kept_even_if_the_record_names_a_missing_one(
    store: AgedStore,
) -> None:
    add_mp4(store, 1, b"what is left", OLD_S)
    add_record(store, 1, b"gone")
    assert not found(store)


def test_mp4s_beside_an_unreadable_record_are_kept(store: AgedStore) -> None:
    for body in (b"one", b"two"):
        add_mp4(store, 1, body, OLD_S)
    store.put_aged(record_key(clip_id(1)), b'{"schema_version": 99}', OLD_S)
    assert not found(store)


def test_pictures_go_with_the_mp4_beside_which_they_stand(store: AgedStore) -> None:
    named, loser = add_mp4(store, 1, b"named", OLD_S), add_mp4(store, 1, b"loser", OLD_S)
    kept = add_pictures(store, 1, b"named", OLD_S)
    gone = add_pictures(store, 1, b"loser", OLD_S) | add_pictures(store, 2, b"none", OLD_S)
    young = add_pictures(store, 1, b"young", YOUNG_S)
    record = add_record(store, 1, b"named")
    assert found(store) == gone | {loser}
    removed(store)
    assert set(store.keys("")) == {named, record} | kept | young


def test_pictures_of_a_damaged_clip_are_kept_for_its_repair(store: AgedStore) -> None:
    add_pictures(store, 1, b"gone", OLD_S)
    add_record(store, 1, b"gone")
    others = add_pictures(store, 1, b"another", OLD_S)
    assert found(store) == others


def test_pictures_beside_an_unreadable_record_are_kept(store: AgedStore) -> None:
    add_pictures(store, 1, b"one", OLD_S)
    store.put_aged(record_key(clip_id(1)), b'{"schema_version": 99}', OLD_S)
    assert not found(store)


def test_a_clip_that_is_committed_after_the_first_look_keeps_its_pictures(
    store: AgedStore,
) -> None:
    pictures = add_pictures(store, 1, b"slow", OLD_S)
    assert removed(store, lambda: commit_late(store)) == Removed(0, 0, 2)
    assert pictures < set(store.keys(""))


def test_quarantine_of_a_committed_clip_is_garbage_and_of_any_other_is_not(
    store: AgedStore,
) -> None:
    add_record(store, 1, b"one")
    stale = store.put_aged(f"quarantine/{clip_id(1)}.json", b"{}", OLD_S)
    store.put_aged(f"quarantine/{clip_id(2)}.json", b"{}", OLD_S)
    assert found(store) == {stale}


def test_latents_are_kept_for_inspection_until_their_clip_is_committed(store: AgedStore) -> None:
    add_record(store, 1, b"one")
    done = store.put_aged(f"failures/{clip_id(1)}/run-1.safetensors", b"", OLD_S)
    orphan = store.put_aged(f"failures/{clip_id(2)}/run-1.safetensors", b"", OLD_S)
    for name in ("run-2.safetensors", "run-2.json"):
        store.put_aged(f"failures/{clip_id(2)}/{name}", b"", OLD_S)
    store.put_aged(f"failures/{clip_id(1)}/run-1.json", b"", OLD_S)
    assert found(store) == {done, orphan}


def test_data_files_that_the_gallery_does_not_name_are_garbage(store: AgedStore) -> None:
    named, other = f"part-0-{'a' * 16}.js", f"part-0-{'b' * 16}.js"
    left = {store.put_aged(f"report/data/{name}", b"", OLD_S) for name in (named, other)}
    store.put_aged("report/index.html", b"", OLD_S)
    store.put_aged("report/data/mine.txt", b"", OLD_S)
    assert found(store) == left  # no index names any of them
    details = {"file": f"details-0-{'c' * 16}.js"}
    index = {"version": 1, "parts": [{"file": named}], "details": [details]}
    store.put_aged("report/data/index.js", script("index", index), OLD_S)
    garbage = find_garbage(store, DAY_S)
    assert {one.stored.key for one in garbage} == {f"report/data/{other}"}
    index["parts"] = [{"file": other}]
    store.put_aged("report/data/index.js", script("index", index), OLD_S)
    assert remove_garbage(store, garbage, DAY_S, nothing).num_spared == 1  # named by now


def test_a_refused_mp4_is_kept_until_its_clip_is_committed(store: AgedStore) -> None:
    add_record(store, 1, b"one")
    done = store.put_aged(refused_clip_key(clip_id(1), "run", 1), b"mp4", OLD_S)
    orphan = store.put_aged(refused_clip_key(clip_id(2), "run", 1), b"mp4", OLD_S)
    store.put_aged(refused_clip_key(clip_id(2), "run", 2), b"mp4", OLD_S)
    store.put_aged(f"failures/{clip_id(2)}/run-2.json", b"{}", OLD_S)
    assert found(store) == {done, orphan}


def test_an_old_access_check_is_garbage(store: AgedStore) -> None:
    left = store.put_aged("access-check-0123456789abcdef", b"check", OLD_S)
    store.put_aged("access-check-0123456789abcdee", b"check", YOUNG_S)
    assert found(store) == {left}


def test_foreign_objects_and_other_kinds_of_keys_are_not_garbage(store: AgedStore) -> None:
    for key in (
        "clips/README.txt",
        "clips/mine/a.mp4",
        "notes.txt",
        "runs/run/run.json",
        "lease/0000000001.json",
    ):
        store.put_aged(key, b"", OLD_S)
    assert not found(store)


# the second look


def commit_late(store: AgedStore) -> None:
    add_record(store, 1, b"slow")


def upload_again(store: AgedStore) -> None:
    add_mp4(store, 1, b"again", YOUNG_S)


def test_a_clip_that_is_committed_after_the_first_look_keeps_its_mp4(store: AgedStore) -> None:
    mp4 = add_mp4(store, 1, b"slow", OLD_S)
    assert removed(store, lambda: commit_late(store)) == Removed(0, 0, 1)
    assert store.exists(mp4)


def test_an_mp4_that_is_uploaded_once_more_after_the_first_look_is_young_again(
    store: AgedStore,
) -> None:
    mp4 = add_mp4(store, 1, b"again", OLD_S)
    assert removed(store, lambda: upload_again(store)) == Removed(0, 0, 1)
    assert store.exists(mp4)


def test_an_mp4_whose_record_cannot_be_read_at_the_second_look_is_spared(store: AgedStore) -> None:
    mp4 = add_mp4(store, 1, b"newer", OLD_S)
    assert (
        removed(
            store, lambda: store.put(record_key(clip_id(1)), b'{"schema_version": 99}', TEXT)
        ).num_spared
        == 1
    )
    assert store.exists(mp4)


def test_an_object_that_another_process_removed_is_not_counted(store: AgedStore) -> None:
    mp4 = add_mp4(store, 1, b"gone", OLD_S)
    assert removed(store, lambda: store.delete(mp4)) == Removed(0, 0, 1)


def test_quarantine_that_belongs_to_nothing_committed_is_spared_at_the_second_look(
    store: AgedStore,
) -> None:
    record = add_record(store, 1, b"one")
    store.put_aged(f"quarantine/{clip_id(1)}.json", b"{}", OLD_S)
    assert removed(store, lambda: store.delete(record)) == Removed(0, 0, 1)


def test_an_error_before_a_removal_ends_the_removals_at_once(store: AgedStore) -> None:
    mp4s = {add_mp4(store, number, b"x", OLD_S) for number in range(5)}
    calls: list[int] = []

    def lost_at_the_third() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise LeaseLostError("another driver has taken this output")

    with pytest.raises(LeaseLostError):
        removed(store, lost_at_the_third)
    assert len(mp4s & set(store.keys(""))) == 3


@pytest.mark.s3
def test_gc_on_s3_removes_an_unnamed_mp4_and_keeps_the_committed_clip(
    s3_environment: object,
) -> None:
    store = open_store(f"s3://renders/{uuid.uuid4().hex}", StoreConfig(max_attempts=2))
    named = upload_clip(store, clip_id(1), b"named")
    upload_clip(store, clip_id(1), b"loser")
    assert commit_record(store, named, record_of(store, b"named", clip_id(1)))
    assert not find_garbage(store, 60)
    assert remove_garbage(store, find_garbage(store, 0), 0, nothing) == Removed(1, 5, 0)
    assert set(store.keys("")) == {named.key, record_key(clip_id(1))}


# any store


@dataclass(frozen=True)
class Clip:
    """One clip of an output, in any state.

    Args:
        ages: last changes of its MP4s.
        named: index of the MP4 that its record names; None without a record.
        pictures: number of the MP4 beside which a poster stands, which may be gone, and its age.
        latents: for each attempt with latents: does its failure record exist, and their age.
        quarantined: time of the quarantine; None without one.
    """

    ages: tuple[float, ...]
    named: int | None
    pictures: tuple[tuple[int, float], ...]
    latents: tuple[tuple[bool, float], ...]
    quarantined: float | None


ages = st.sampled_from([OLD_S, YOUNG_S])


@st.composite
def clips(draw: st.DrawFn) -> Clip:
    mp4s = draw(st.lists(ages, max_size=3))
    named = draw(st.none() | st.integers(0, len(mp4s) - 1)) if mp4s else None
    latents = draw(st.lists(st.tuples(st.booleans(), ages), max_size=2))
    pictures = draw(st.dictionaries(st.integers(0, 3), ages))
    return Clip(tuple(mp4s), named, tuple(pictures.items()), tuple(latents), draw(st.none() | ages))


def build(store: AgedStore, number: int, clip: Clip) -> set[str]:
    """Write a clip; return the keys that are garbage."""
    is_done = clip.named is not None
    garbage: set[str] = set()
    for index, age in enumerate(clip.ages):
        key = add_mp4(store, number, b"%d" % index, age)
        if index == clip.named:
            add_record(store, number, b"%d" % index)
        elif age == OLD_S:
            garbage.add(key)
    for index, age in clip.pictures:
        keys = add_pictures(store, number, b"%d" % index, age)
        if age == OLD_S and index != clip.named:
            garbage |= keys
    for attempt, (has_record, age) in enumerate(clip.latents, start=1):
        key = store.put_aged(f"failures/{clip_id(number)}/run-{attempt}.safetensors", b"", age)
        refused = store.put_aged(refused_clip_key(clip_id(number), "run", attempt), b"", age)
        if has_record:
            store.put_aged(f"failures/{clip_id(number)}/run-{attempt}.json", b"{}", age)
        if age == OLD_S and (is_done or not has_record):
            garbage |= {key, refused}
    if clip.quarantined is not None:
        key = store.put_aged(f"quarantine/{clip_id(number)}.json", b"{}", clip.quarantined)
        if clip.quarantined == OLD_S and is_done:
            garbage.add(key)
    return garbage


@given(st.lists(clips(), max_size=5), st.lists(ages, max_size=2))
def test_exactly_the_old_garbage_is_removed_and_a_listing_removes_nothing(
    some: list[Clip], checks: list[float]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = AgedStore(FolderLocation(Path(folder)))
        garbage = {key for number, clip in enumerate(some) for key in build(store, number, clip)}
        for number, age in enumerate(checks):
            key = store.put_aged(f"access-check-{number:016x}", b"", age)
            garbage |= {key} if age == OLD_S else set[str]()
        store.put_aged(input_key("a" * 64), b"image", OLD_S)  # never by this search
        before = set(store.keys(""))
        assert found(store) == garbage
        assert set(store.keys("")) == before
        assert removed(store).num_removed == len(garbage)
        assert set(store.keys("")) == before - garbage
        assert not found(store)
