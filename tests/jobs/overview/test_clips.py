"""Every clip of an output as one value: its state, its names, and what cannot be read."""

from dataclasses import replace

import pytest

from jobs.errors import StoreUnavailableError
from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.commit import (
    JSON,
    upload_clip,
    write_failure,
    write_quarantine,
)
from jobs.records.keys import failure_key, name_key, quarantine_key, record_key
from jobs.records.listing import list_clips
from jobs.records.pictures import write_latents
from tests.builders.records import AT_S, RUN_ID, commit, failure_of, quarantine_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore, Trouble


def clips_of(store: MemoryStore) -> dict[str, OutputClip]:
    return {one.clip_id: one for one in read_clips(store) if isinstance(one, OutputClip)}


def test_every_state_of_a_clip_is_told_in_the_order_of_ids() -> None:
    store = MemoryStore()
    whole, damaged = spec("whole"), spec("damaged")
    record = commit(store, whole)
    gone = commit(store, damaged, b"gone")
    store.delete(gone.key)
    write_quarantine(store, quarantine_of("1" * 32))
    write_failure(store, failure_of("1" * 32))
    write_failure(store, failure_of("2" * 32, "second", AT_S + 1, attempt=2))
    write_failure(store, failure_of("2" * 32, "first", AT_S))
    write_latents(store, "2" * 32, RUN_ID, 1, b"latents")
    upload_clip(store, "3" * 32, b"never committed")
    found = list(read_clips(store))
    assert [one.clip_id for one in found] == sorted(one.clip_id for one in found)
    by_id = clips_of(store)
    assert {clip_id: clip.state for clip_id, clip in by_id.items()} == {
        whole.clip_id: "committed",
        damaged.clip_id: "damaged",
        "1" * 32: "quarantined",
        "2" * 32: "failed",
    }
    assert by_id[whole.clip_id].record == record
    assert by_id[damaged.clip_id].record == gone
    assert by_id["1" * 32].quarantine == quarantine_of("1" * 32)
    assert [one.message for one in by_id["2" * 32].failures] == ["first", "second"]
    assert by_id["2" * 32].record is None


def test_a_clip_has_the_names_of_its_record_and_of_the_index_each_once() -> None:
    store = MemoryStore()
    record = commit(store, spec("fox"))
    for name in ("vixen", "fox-0", "animal"):
        store.put(name_key(record.clip_id, name), b"{}", JSON)
    (clip,) = clips_of(store).values()
    assert clip.names == ("fox-0", "animal", "vixen")
    assert clip.name == "fox-0"


def test_failures_of_committed_clips_are_read_only_on_demand() -> None:
    store = MemoryStore()
    record = commit(store, spec("fox"))
    write_failure(store, failure_of(record.clip_id))
    write_failure(store, failure_of("2" * 32))
    assert [len(one.failures) for one in clips_of(store).values()] == [1, 1]
    without = [one for one in read_clips(store, with_failures=False) if isinstance(one, OutputClip)]
    assert {one.clip_id: len(one.failures) for one in without} == {record.clip_id: 0, "2" * 32: 1}


def test_the_quarantine_of_a_committed_clip_no_longer_counts() -> None:
    store = MemoryStore()
    record = commit(store, spec("fox"))
    write_quarantine(store, quarantine_of(record.clip_id))
    (clip,) = clips_of(store).values()
    assert (clip.state, clip.quarantine) == ("committed", None)
    store.delete(record.key)
    (clip,) = clips_of(store).values()
    assert (clip.state, clip.quarantine) == ("damaged", quarantine_of(record.clip_id))


def test_an_mp4_that_was_committed_during_the_listing_is_there() -> None:
    store = MemoryStore()
    before = commit(store, spec("fox"))
    body = store.objects.pop(before.key)
    listed = list(list_clips(store))
    store.objects[before.key] = body
    (clip,) = [one for one in read_clips(store, listed=listed) if isinstance(one, OutputClip)]
    assert clip.state == "committed"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema_version": 99}', b"\xff" * 10])
def test_an_object_that_cannot_be_read_is_a_value(content: bytes) -> None:
    store = MemoryStore()
    whole, broken = commit(store, spec("whole")), commit(store, spec("broken"), b"other")
    store.put(record_key(broken.clip_id), content, JSON)
    store.put(quarantine_key("1" * 32), content, JSON)
    write_failure(store, failure_of("2" * 32))
    store.put(failure_key("2" * 32, RUN_ID, 2), content, JSON)
    store.put(failure_key("4" * 32, RUN_ID, 1), content, JSON)
    unreadable = {one.key for one in read_clips(store) if isinstance(one, Unreadable)}
    assert unreadable == {
        record_key(broken.clip_id),
        quarantine_key("1" * 32),
        failure_key("2" * 32, RUN_ID, 2),
        failure_key("4" * 32, RUN_ID, 1),
    }
    assert set(clips_of(store)) == {whole.clip_id, "2" * 32}


def test_a_record_of_another_clip_is_not_taken_for_its_own() -> None:
    store = MemoryStore()
    record = commit(store, spec("fox"))
    store.put(record_key("1" * 32), record.to_json(), JSON)
    other = replace(failure_of("2" * 32), clip_id="3" * 32)
    store.put(failure_key("2" * 32, RUN_ID, 1), other.to_json(), JSON)
    found = [one for one in read_clips(store) if isinstance(one, Unreadable)]
    assert [one.clip_id for one in found] == ["1" * 32, "2" * 32]
    assert all("another clip" in one.message for one in found)


def test_a_store_that_does_not_answer_ends_the_reading() -> None:
    store = MemoryStore()
    commit(store, spec("fox"))
    silent: list[Trouble] = ["unavailable"] * 9
    store.troubles.extend([*[None] * 5, *silent])
    with pytest.raises(StoreUnavailableError):
        list(read_clips(store))
