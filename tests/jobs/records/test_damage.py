"""Damaged clips: a record without its MP4 is found, and no whole clip is called damaged."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import StoreUnavailableError
from jobs.records.commit import commit_record, committed_ids, read_record, upload_clip
from jobs.records.damage import find_damaged, is_committed, without_mp4
from jobs.records.keys import clip_key, record_key
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.records import record_of
from tests.fakes.store import MemoryStore

CLIP_ID, OTHER_ID = "1" * 32, "2" * 32
JSON = "application/json"


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


def commit(store: Store, clip_id: str, body: bytes = b"video") -> str:
    """Commit a clip and return the key of its MP4."""
    clip = upload_clip(store, clip_id, body)
    assert commit_record(store, clip, record_of(store, body, clip_id))
    return clip.key


def remove(store: Store, key: str) -> None:
    store.delete(key)


def cut(store: Store, key: str) -> None:
    store.put(key, b"vide", "video/mp4")


def leave_another(store: Store, key: str) -> None:
    store.delete(key)
    store.put(clip_key(CLIP_ID, "f" * 64), b"other", "video/mp4")


@pytest.mark.parametrize(
    ("harm", "is_listed"), [(remove, True), (cut, False), (leave_another, False)]
)
def test_a_record_without_its_mp4_is_found(
    store: Store, harm: Callable[[Store, str], None], is_listed: bool
) -> None:
    key = commit(store, CLIP_ID)
    commit(store, OTHER_ID)
    assert is_committed(store, CLIP_ID)
    assert not list(find_damaged(store))
    harm(store, key)
    assert list(find_damaged(store)) == [CLIP_ID]
    assert without_mp4(store, committed_ids(store)) == ({CLIP_ID} if is_listed else set())
    assert not is_committed(store, CLIP_ID)
    assert is_committed(store, OTHER_ID)


def test_a_record_with_another_size_of_the_same_mp4_is_replaced(store: Store) -> None:
    clip = upload_clip(store, CLIP_ID, b"video")
    record = record_of(store, b"video", CLIP_ID)
    store.put(record_key(CLIP_ID), replace(record, num_bytes=6).to_json(), JSON)
    assert list(find_damaged(store)) == [CLIP_ID]
    assert commit_record(store, clip, record)
    assert list(find_damaged(store)) == []
    assert read_record(store, CLIP_ID) == record


def test_clips_without_a_record_are_not_damaged(store: Store) -> None:
    upload_clip(store, CLIP_ID, b"video")
    store.put(f"quarantine/{OTHER_ID}.json", b"{}", JSON)
    assert not list(find_damaged(store))
    assert not without_mp4(store, committed_ids(store))
    assert not is_committed(store, CLIP_ID)


def test_a_record_that_cannot_be_read_is_not_called_damaged(store: Store) -> None:
    """Another version may have written it, and what it names is not known."""
    upload_clip(store, CLIP_ID, b"video")
    store.put(record_key(CLIP_ID), b'{"schema_version": 99}', JSON)
    assert not list(find_damaged(store))
    assert is_committed(store, CLIP_ID)


def test_a_clip_that_is_committed_while_the_output_is_listed_is_not_damaged() -> None:
    class Busy(MemoryStore):
        """A clip is committed before each look at the store."""

        def entries(self, prefix: str):
            if not self.is_committing:
                self.is_committing = True
                number = f"{self.number:032x}"
                type(self).number += 1
                commit(self, number)
                self.is_committing = False
            return super().entries(prefix)

        is_committing = False
        number = 0

    store = Busy()
    for _ in range(5):
        assert not without_mp4(store, committed_ids(store))
        assert not list(find_damaged(store))


def test_a_store_that_does_not_answer_is_not_taken_for_damage() -> None:
    store = MemoryStore()
    commit(store, CLIP_ID)
    store.troubles.extend([None, "unavailable"])
    with pytest.raises(StoreUnavailableError):
        is_committed(store, CLIP_ID)
