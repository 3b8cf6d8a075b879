"""The salt of an output: drawn once, whoever asks first."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.errors import RecordError
from jobs.records.keys import SALT_KEY
from jobs.records.salt import keep_salt, read_salt
from tests.fakes.store import MemoryStore


def test_a_salt_is_drawn_once_for_each_output() -> None:
    store, other = MemoryStore(), MemoryStore()
    assert read_salt(store) is None
    salt = keep_salt(store)
    assert keep_salt(store) == read_salt(store) == salt
    assert len(salt) == 16
    assert keep_salt(other) != salt


def test_of_several_plans_at_once_one_draws() -> None:
    store = MemoryStore()
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(lambda _: keep_salt(store), range(32)))) == 1


def test_a_damaged_salt_is_refused_and_not_drawn_anew() -> None:
    for content in (b"", b"{}", b'{"schema_version": 1, "salt": "0"}', b"[]"):
        store = MemoryStore()
        store.put(SALT_KEY, content, "application/json")
        with pytest.raises(RecordError, match=SALT_KEY):
            keep_salt(store)
        assert store.get(SALT_KEY) == content
