"""A gallery whose own files, or the runs of its output, are not what this program wrote."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from jobs.records.keys import RUN_FILE, STATUS_FILE, SUMMARY_FILE, run_key
from jobs.report.gallery import Gallery
from jobs.report.links import PlainLinks
from jobs.report.scripts import document_of, script
from jobs.report.target import KEEP_S, Target, is_left_over
from tests.builders.outputs import make_output
from tests.builders.records import RUN_ID, commit
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

INDEX = "report/data/index.js"
Change = Callable[[dict[str, Any]], object]


def gallery_of(store: MemoryStore) -> Gallery:
    return Gallery(store, Target(store, is_output=True), PlainLinks("../"))


def index_of(store: MemoryStore) -> dict[str, Any]:
    return document_of("index", store.objects[INDEX].body)


def is_whole(store: MemoryStore) -> bool:
    """Return True if every data file that the index names is there."""
    index = index_of(store)
    files = [one["file"] for one in [*index["parts"], *index["details"]]]
    return all(f"report/data/{file}" in store.objects for file in files)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    make_output(store, 3)
    gallery_of(store).refresh()
    return store


@pytest.mark.parametrize(
    "change",
    [
        {"parts": 5, "details": None},
        {"details": []},
        {"parts": [[1]], "details": [{}]},
        {"parts": [{"file": 3}], "details": [{"file": 3}]},
        {"parts": [{"file": "../../x"}], "details": [{"file": "/etc/passwd"}]},
    ],
)
def test_an_index_that_names_no_files_is_written_anew(
    store: MemoryStore, change: dict[str, Any]
) -> None:
    store.put(INDEX, script("index", index_of(store) | change), "")
    assert is_left_over(store, "report/data/part-0-0123456789abcdef.js")
    assert gallery_of(store).refresh().num_read == 3
    assert is_whole(store)


def _each(value: object) -> Change:
    return lambda document: document.update(dict.fromkeys(document, value))


def _column(name: str, value: object) -> Change:
    return lambda part: part["columns"].update({name: [value for _ in part["columns"]["id"]]})


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("part", lambda part: part.update(links={"expire_at": 5})),
        ("part", lambda part: part.update(strings=[{} for _ in part["strings"]])),
        ("part", _column("id", [])),
        ("part", _column("key", 5)),
        ("details", _each(None)),
        ("details", _each({})),
        ("details", _each({"failures": [3]})),
    ],
)
def test_a_data_file_of_another_form_is_written_anew(
    store: MemoryStore, kind: str, change: Change
) -> None:
    index, target = index_of(store), Target(store, is_output=True)
    named = index["parts" if kind == "part" else "details"][0]
    document = document_of(kind, store.objects[f"report/data/{named['file']}"].body)
    change(document)
    named["file"] = target.write_data(kind, document, 0)
    store.put(INDEX, script("index", index), "")
    commit(store, spec("new"))  # so that the part is written again
    refreshed = gallery_of(store).refresh()
    assert refreshed.counts == {"committed": 4}
    assert is_whole(store)


@pytest.mark.parametrize("name", [RUN_FILE, STATUS_FILE, SUMMARY_FILE])
@pytest.mark.parametrize(
    "content",
    [b'{"cost": 1e999}', b'{"elapsed_s": "5", "num_committed": {"toLocaleString": 1}}', b"[]"],
)
def test_a_document_of_a_run_that_is_none_reaches_no_page(
    store: MemoryStore, name: str, content: bytes
) -> None:
    store.put(run_key(RUN_ID, name), content, "")
    gallery_of(store).refresh()
    (run,) = index_of(store)["runs"]
    if name == RUN_FILE:
        assert run["manifest"] is None
    else:
        assert run[name.removesuffix(".json")] is None


@dataclass
class SignedLinks:
    """Links whose parts are signed again at each refresh, or never."""

    valid_s: float
    written: str = "presigned"
    base: str = "https://example.com/"
    num_signed: int = 0

    def sign(self, keys: Sequence[str]) -> dict[str, Any]:
        self.num_signed += 1
        return {"expire_at": "2100-01-01T00:00:00Z", "queries": [self.num_signed], "signed": {}}


def test_two_refreshes_at_once_name_files_that_are_there(store: MemoryStore) -> None:
    now = 1_000_000.0
    store.clock = lambda: now
    target = Target(store, is_output=True)
    calm = Gallery(store, target, SignedLinks(valid_s=10))
    busy = Gallery(store, target, SignedLinks(valid_s=1e10))
    calm.refresh()
    for _ in range(3):  # this one replaces the part, and removes the old ones later
        busy.refresh()
        now += KEEP_S + 1
    assert calm.refresh().num_read == 0
    assert is_whole(store)


def test_a_gallery_that_was_removed_comes_back_whole(store: MemoryStore) -> None:
    gallery = gallery_of(store)
    gallery.refresh()
    for key in [key for key in store.objects if key.startswith("report/")]:
        store.delete(key)
    gallery.refresh()
    assert is_whole(store)
    assert "report/index.html" in store.objects
