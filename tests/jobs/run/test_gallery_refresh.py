"""The gallery that is refreshed beside a run: when, and what its troubles do to the run."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from jobs.errors import DeadlineReachedError, LeaseHeldError, StoppedError, StoreUnavailableError
from jobs.report.scripts import document_of
from jobs.run.gallery_refresh import GalleryRefresh
from tests.builders.outputs import make_output
from tests.builders.records import commit
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

INDEX = "report/data/index.js"
WAIT_S = 60.0


@dataclass
class WatchedStore(MemoryStore):
    """A store that wakes a test at each write of the index, and may refuse it."""

    is_away: bool = False
    indexes: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    written: threading.Condition = field(default_factory=threading.Condition)

    def put(self, key: str, body: Any, content_type: str, sha256: bytes | None = None) -> None:
        if key == INDEX:
            with self.written:
                if not self.is_away:
                    self.indexes.append(document_of("index", body))
                self.written.notify_all()
            if self.is_away:
                raise StoreUnavailableError("no answer")
        super().put(key, body, content_type, sha256)

    def wait(self, num_indexes: int) -> None:
        with self.written:
            assert self.written.wait_for(lambda: len(self.indexes) >= num_indexes, WAIT_S)


@pytest.fixture
def store() -> WatchedStore:
    store = WatchedStore()
    make_output(store, 4)
    return store


@contextmanager
def refreshed(store: WatchedStore, every_s: float) -> Generator[list[str]]:
    lines: list[str] = []
    with GalleryRefresh(store, every_s, lines.append):
        yield lines


def test_a_gallery_grows_during_a_run_and_is_complete_behind_it(store: WatchedStore) -> None:
    with refreshed(store, every_s=0.01) as lines:
        store.wait(1)
        assert (store.indexes[0]["is_running"], store.indexes[0]["refresh_s"]) == (True, 0.01)
        assert store.indexes[0]["counts"]["committed"] == 4
        commit(store, spec("late"))
        store.wait(len(store.indexes) + 2)
        assert store.indexes[-1]["counts"]["committed"] == 5
        commit(store, spec("last"))
    last = store.indexes[-1]
    assert (last["is_running"], last["refresh_s"], last["counts"]["committed"]) == (False, None, 6)
    assert lines == []


@pytest.mark.parametrize("error", [DeadlineReachedError("late"), StoppedError("by SIGTERM")])
def test_a_run_that_is_stopped_gets_its_last_refresh(
    store: WatchedStore, error: StoppedError
) -> None:
    with suppress(StoppedError), refreshed(store, every_s=3600):
        raise error
    assert [index["is_running"] for index in store.indexes] == [False]


def test_a_run_that_is_refused_writes_no_gallery(store: WatchedStore) -> None:
    with suppress(LeaseHeldError), refreshed(store, every_s=3600) as lines:
        raise LeaseHeldError("another driver")
    assert (store.indexes, lines) == ([], [])


def test_a_store_that_is_away_fails_no_run_and_is_named_once(store: WatchedStore) -> None:
    store.is_away = True
    with refreshed(store, every_s=0.01) as lines:
        for _ in range(3):
            with store.written:
                assert store.written.wait(WAIT_S)
        assert lines == ["the gallery could not be refreshed: no answer"]
        store.is_away = False
        store.wait(1)
    assert store.indexes[-1]["is_running"] is False
    assert len(lines) == 1
