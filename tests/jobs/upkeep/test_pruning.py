"""Clips that no manifest names are removed whole, and no crash or late commit damages a clip."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from jobs.digests import IdSet
from jobs.errors import LeaseLostError, StoreUnavailableError
from jobs.overview.clips import read_clips
from jobs.records.commit import (
    JSON,
    MP4,
    commit_record,
    upload_clip,
    write_failure,
    write_quarantine,
)
from jobs.records.damage import find_damaged, is_committed
from jobs.records.keys import (
    failure_key,
    latents_key,
    name_key,
    poster_key,
    record_key,
    refused_clip_key,
    thumbnail_key,
)
from jobs.records.schema import ClipRecord
from jobs.store.store import Store
from jobs.types import ClipSpec
from jobs.upkeep.pruning import Kept, Spared, Unnamed, remove_clips, sort_clips
from tests.builders.records import LONG_AGO, RUN_ID, commit, failure_of, quarantine_of, record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

NOW = 1_000_000.0
OLD, NEW = spec("old settings"), spec("new settings")


class AgedStore(MemoryStore):
    """A store whose objects are an hour old, until its clock is set to now."""

    def __init__(self) -> None:
        self.time = NOW - 3600
        super().__init__(clock=lambda: self.time)


def fill(store: MemoryStore, of: ClipSpec) -> ClipRecord:
    """Commit a clip with everything that an output may hold of it."""
    record = commit(store, of, of.clip_id.encode())
    clip_id = of.clip_id
    for key in (poster_key, thumbnail_key):
        store.put(key(clip_id, record.sha256), b"jpeg", "image/jpeg")
    store.put(name_key(clip_id, "another-name"), b"{}", JSON)
    write_failure(store, failure_of(clip_id))
    store.put(latents_key(clip_id, RUN_ID, 1), b"latents", "application/octet-stream")
    store.put(refused_clip_key(clip_id, RUN_ID, 1), b"refused", MP4)
    write_quarantine(store, quarantine_of(clip_id))
    return record


@pytest.fixture
def store() -> AgedStore:
    store = AgedStore()
    fill(store, OLD)
    fill(store, NEW)
    store.put("runs/x/run.json", b"{}", JSON)
    store.put("clips/foreign.txt", b"a stranger's", "text/plain")
    store.time = NOW
    return store


def unnamed(store: Store, *named: ClipSpec, written_before: float = NOW - 60) -> list[Unnamed]:
    ids = IdSet(one.clip_id for one in named)
    found = list(sort_clips(store, ids, written_before))
    return [one for one in found if isinstance(one, Unnamed)]


def prune(store: Store, clips: list[Unnamed], written_before: float = NOW - 60) -> list[int | None]:
    return list(remove_clips(store, clips, written_before, lambda: None))


def keys_of(store: MemoryStore, of: ClipSpec) -> set[str]:
    return {key for key in store.objects if of.clip_id in key}


def test_a_clip_that_is_not_named_is_removed_with_all_of_its_objects_and_no_other(
    store: AgedStore,
) -> None:
    before = dict(store.objects)
    (old,) = unnamed(store, NEW)
    assert old.clip is not None
    assert old.clip.name == OLD.name
    sizes = {key: len(before[key].body) for key in keys_of(store, OLD)}
    assert len(sizes) == 9
    assert old.num_bytes == sum(sizes.values())
    assert prune(store, [old]) == [old.num_bytes]
    assert before.keys() - store.objects.keys() == sizes.keys()
    assert is_committed(store, NEW.clip_id)


def test_a_crash_at_any_request_damages_no_clip_and_the_next_try_ends_the_work() -> None:
    num_deleted = 0
    while True:

        class Crashing(AgedStore):
            left = num_deleted

            def delete(self, key: str) -> None:
                if not self.left:
                    raise StoreUnavailableError("the machine died")
                self.left -= 1
                super().delete(key)

        store = Crashing()
        fill(store, OLD)
        fill(store, NEW)
        store.time = NOW
        clips = unnamed(store, NEW)
        try:
            prune(store, clips)
        except StoreUnavailableError:
            pass
        else:
            break
        assert not list(find_damaged(store)), f"after {num_deleted} removals"
        assert is_committed(store, NEW.clip_id)
        store.left = 100
        assert None not in prune(store, unnamed(store, NEW))
        assert not keys_of(store, OLD)
        num_deleted += 1
    assert num_deleted == 9


def test_a_clip_that_a_forgotten_worker_commits_again_meanwhile_stays_whole() -> None:
    """Its upload makes the same MP4 young, and its record comes back behind the removed one."""

    class Busy(AgedStore):
        is_late = True

        def delete(self, key: str) -> None:
            super().delete(key)
            if key == record_key(OLD.clip_id) and self.is_late:
                body = OLD.clip_id.encode()
                clip = upload_clip(self, OLD.clip_id, body)
                assert commit_record(self, clip, record_of(self, body, OLD.clip_id))

    store = Busy()
    fill(store, OLD)
    store.time = NOW
    assert prune(store, unnamed(store)) == [None]
    assert is_committed(store, OLD.clip_id)
    assert not list(find_damaged(store))


def test_an_upload_whose_record_is_still_to_come_keeps_its_mp4() -> None:
    class Busy(AgedStore):
        def delete(self, key: str) -> None:
            super().delete(key)
            if key == record_key(OLD.clip_id):
                upload_clip(self, OLD.clip_id, OLD.clip_id.encode())

    store = Busy()
    record = fill(store, OLD)
    store.time = NOW
    assert prune(store, unnamed(store)) == [None]
    assert store.exists(record.key)


@pytest.mark.parametrize("key", [record_key(OLD.clip_id), failure_key(OLD.clip_id, RUN_ID, 1)])
def test_a_clip_that_cannot_be_judged_is_spared(store: AgedStore, key: str) -> None:
    body = b'{"schema_version": 99}'
    store.objects[key] = replace(store.objects[key], body=body)
    found = list(sort_clips(store, IdSet([NEW.clip_id]), NOW - 60))
    (spared,) = [one for one in found if isinstance(one, Spared)]
    assert (spared.clip_id, spared.is_young) == (OLD.clip_id, False)
    assert key in spared.reason
    assert [one for one in found if not isinstance(one, Spared)] == [Kept(NEW.clip_id)]


def test_a_clip_with_a_young_object_is_spared(store: AgedStore) -> None:
    store.put(name_key(OLD.clip_id, "just-named"), b"{}", JSON)
    (spared,) = [one for one in sort_clips(store, IdSet(), NOW - 60) if isinstance(one, Spared)]
    assert (spared.clip_id, spared.is_young) == (OLD.clip_id, True)
    assert len(unnamed(store, written_before=NOW)) == 2


def test_the_leftovers_of_a_clip_without_a_record_are_removed(store: AgedStore) -> None:
    store.time = LONG_AGO
    upload_clip(store, "1" * 32, b"never committed")
    store.put(name_key("2" * 32, "left"), b"{}", JSON)
    store.time = NOW
    clips = unnamed(store, OLD, NEW)
    assert [(one.objects.clip_id, one.clip) for one in clips] == [
        ("1" * 32, None), ("2" * 32, None),
    ]  # fmt: skip
    assert None not in prune(store, clips)
    assert not {key for key in store.objects if "1" * 32 in key or "2" * 32 in key}


def test_a_removal_ends_when_the_lease_is_lost(store: AgedStore) -> None:
    def lost() -> None:
        raise LeaseLostError("another driver")

    removal: Iterator[int | None] = remove_clips(store, unnamed(store), NOW, lost)
    with pytest.raises(LeaseLostError):
        list(removal)
    assert {one.clip_id for one in read_clips(store)} == {OLD.clip_id, NEW.clip_id}
