"""The data of a gallery, and their refresh: what is read and written, and what the page gets."""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from jobs.errors import RecordError, StoreUnavailableError
from jobs.records.commit import lift_quarantine, read_record, write_failure, write_quarantine
from jobs.records.keys import parse_key, quarantine_key, record_key
from jobs.report.gallery import Gallery, Refreshed
from jobs.report.links import PlainLinks
from jobs.report.scripts import document_of, part_document, rows_of, script
from jobs.report.target import KEEP_S, Target
from tests.builders.outputs import PROMPTS, make_output
from tests.builders.records import commit, failure_of, quarantine_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

A_PART = 50


@dataclass
class CountingStore(MemoryStore):
    """A store that notes which objects are read and written."""

    read: list[str] = field(default_factory=list[str])
    written: list[str] = field(default_factory=list[str])
    fails_at: str = ""  # a part of keys

    def chunks(self, key: str) -> Iterator[bytes]:
        self.read.append(key)
        return super().chunks(key)

    def put(self, key: str, body: Any, content_type: str, sha256: bytes | None = None) -> None:
        self.written.append(key)
        if self.fails_at and self.fails_at in key:
            raise StoreUnavailableError(f"{key}: no answer")
        super().put(key, body, content_type, sha256)


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> CountingStore:
    return CountingStore(clock=clock)


def gallery_of(store: MemoryStore) -> Gallery:
    return Gallery(store, Target(store, is_output=True), PlainLinks("../"), clips_a_part=A_PART)


def index_of(store: MemoryStore) -> dict[str, Any]:
    return document_of("index", store.objects["report/data/index.js"].body)


def rows_in(store: MemoryStore) -> dict[str, dict[str, Any]]:
    """Return every row that the page shows, by id, as the index names the parts."""
    found: dict[str, dict[str, Any]] = {}
    for part in index_of(store)["parts"]:
        rows = rows_of(document_of("part", store.objects[f"report/data/{part['file']}"].body))
        assert len(rows) == part["num_clips"]
        found |= {row["id"]: row for row in rows}
    return found


def details_in(store: MemoryStore) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for part in index_of(store)["details"]:
        found |= document_of("details", store.objects[f"report/data/{part['file']}"].body)
    return found


def records_read(store: CountingStore) -> set[str]:
    return {key for key in store.read if key.startswith(("records/", "failures/", "quarantine/"))}


def data_written(store: CountingStore) -> list[str]:
    names = [key.removeprefix("report/data/") for key in store.written if "report/data/" in key]
    return sorted({re.sub(r"-[0-9a-f]{16}", "", name) for name in names})


def test_a_row_has_what_the_page_shows_and_the_details_have_the_rest(store: CountingStore) -> None:
    made = make_output(store, 50)
    refreshed = gallery_of(store).refresh()
    assert refreshed.counts == {"committed": 48, "quarantined": 1, "failed": 1}
    assert index_of(store)["counts"] == refreshed.counts
    rows, details = rows_in(store), details_in(store)
    assert set(rows) == set(details) == {*made.committed, *made.quarantined, *made.failed}
    for clip_id in made.committed:
        row, record = rows[clip_id], read_record(store, clip_id)
        assert (row["state"], row["key"], row["prompt"], row["seed"]) == (
            "committed", record.key, record.request.prompt, str(record.request.sampling.seed),
        )  # fmt: skip
        assert row["poster"] in store.objects
        assert row["thumbnail"] in store.objects
        assert row["stages"]["denoise"] == pytest.approx(record.stage_totals_s["denoise"], abs=1e-3)
        assert row["meta"] == record.meta
        assert details[clip_id]["record"].encode() == record.to_json()
        assert json.loads(details[clip_id]["row"])["prompt"] == record.request.prompt
    lost = rows[made.quarantined[0]]
    assert (lost["key"], lost["error_type"], lost["num_failures"]) == (None, "OutOfMemoryError", 2)
    assert lost["message"].endswith("onerror=alert(49)>")  # its first line
    assert [one["attempt"] for one in details[made.quarantined[0]]["failures"]] == [1, 2]
    assert details[made.quarantined[0]]["quarantine"]["reason"] == "failed on 2 workers"
    assert index_of(store)["title"] == "spring"
    assert index_of(store)["runs"][0]["summary"]["num_committed"] == 48
    assert index_of(store)["cost"]["price"] == pytest.approx(2.6 * 2.5)
    assert lost["prompt"] in PROMPTS  # also without a record
    assert "row" in details[made.quarantined[0]]


def test_a_script_cannot_be_ended_by_a_text_of_a_stranger() -> None:
    text = "</script><!-- \u2028 \u202e 'x' \\ 🎿 \ud800 {\"__proto__\": 1}"
    content = script("part", {"text": text, "__proto__": {"a": text}}, 3)
    assert content.isascii()
    assert b"<" not in content
    assert b"\n" not in content.removesuffix(b"\n")
    assert document_of("part", content) == {"text": text, "__proto__": {"a": text}}


@pytest.mark.parametrize(
    "content",
    [b"", b"nagfarm.part(0,{});", b"nagfarm.part(0,{}); alert(1);\n", b"nagfarm.index({});\n",
     b"nagfarm.part(0,[]);\n", b'nagfarm.part(0,{"a":NaN});\n'],
)  # fmt: skip
def test_a_file_of_another_form_is_no_data_file(content: bytes) -> None:
    with pytest.raises(RecordError):
        document_of("part", content)


def test_rows_become_columns_and_come_back(store: CountingStore) -> None:
    make_output(store, 50)
    gallery_of(store).refresh()
    rows = list(rows_in(store).values())
    assert rows_of(json.loads(json.dumps(part_document(rows, None)))) == rows
    with pytest.raises(RecordError):
        rows_of({"strings": [], "columns": {"id": ["x"], "prompt": [7], "stages": {}}})


def test_a_refresh_without_news_reads_no_clip_and_writes_the_index_alone(
    store: CountingStore,
) -> None:
    make_output(store, 50)
    gallery_of(store).refresh()
    store.read.clear()
    store.written.clear()
    again = gallery_of(store)  # a new process knows the files alone
    assert again.refresh().num_read == 0
    assert records_read(store) == set()
    assert data_written(store) == ["index.js"]
    store.read.clear()
    again.refresh()  # in the same process it does not read the parts again
    assert [key for key in store.read if "report/data/part" in key] == []


def test_a_refresh_reads_new_and_changed_clips_and_writes_their_parts_alone(
    store: CountingStore,
) -> None:
    made = make_output(store, A_PART + 10)
    gallery = gallery_of(store)
    gallery.refresh()
    assert [one["num_clips"] for one in index_of(store)["parts"]] == [A_PART, 10]
    new = commit(store, spec("new"))
    store.read.clear()
    store.written.clear()
    assert gallery.refresh() == Refreshed(
        Counter(committed=len(made.committed) + 1, quarantined=1, failed=1), 1, 1, 0, None
    )
    assert records_read(store) == {record_key(new.clip_id)}
    assert data_written(store) == ["details-1.js", "index.js", "part-1.js"]
    assert rows_in(store)[new.clip_id]["prompt"] == "new"

    first = document_of(
        "part", store.objects[f"report/data/{index_of(store)['parts'][0]['file']}"].body
    )
    clip_id = next(row["id"] for row in rows_of(first) if row["state"] == "committed")
    store.delete(read_record(store, clip_id).key)
    store.written.clear()
    gallery_of(store).refresh()
    assert rows_in(store)[clip_id]["state"] == "damaged"
    assert data_written(store) == ["details-0.js", "index.js", "part-0.js"]


def test_a_record_that_is_replaced_by_one_of_its_size_is_read_again(
    store: CountingStore, clock: Clock
) -> None:
    clip_id = make_output(store, 1).committed[0]
    gallery = gallery_of(store)
    gallery.refresh()
    record = read_record(store, clip_id)
    other = replace(record, name="".join(reversed(record.name)))
    clock.now += 1
    store.put(record_key(clip_id), other.to_json(), "")
    gallery.refresh()
    assert rows_in(store)[clip_id]["name"] == other.name != record.name


def test_a_clip_that_is_gone_leaves_its_part_and_the_next_one_takes_its_place(
    store: CountingStore,
) -> None:
    made = make_output(store, A_PART)
    gallery = gallery_of(store)
    gallery.refresh()
    for key in [key for key in store.objects if made.committed[0] in key]:
        store.delete(key)
    lift_quarantine(store, made.quarantined[0])
    gallery.refresh()
    assert made.committed[0] not in rows_in(store)
    assert rows_in(store)[made.quarantined[0]]["state"] == "failed"
    new = commit(store, spec("new"))
    gallery.refresh()
    assert [one["num_clips"] for one in index_of(store)["parts"]] == [A_PART]
    assert new.clip_id in rows_in(store)


def test_random_changes_leave_the_gallery_of_a_fresh_one(store: CountingStore) -> None:
    draw, made = random.Random(7), make_output(store, 50)
    gallery, ids = gallery_of(store), [*made.committed, *made.quarantined, *made.failed]
    for turn in range(9):
        for _ in range(draw.randrange(4)):
            clip_id = draw.choice(ids)
            match draw.randrange(5):
                case 0:
                    ids.append(commit(store, spec(f"p{turn}", draw.randrange(10**6))).clip_id)
                case 1:
                    write_failure(store, failure_of(clip_id, attempt=draw.randrange(1, 9)))
                case 2:
                    write_quarantine(store, quarantine_of(clip_id))
                case 3:
                    store.delete(record_key(clip_id))
                case _:
                    store.delete(quarantine_key(clip_id))
        (gallery if turn % 3 else gallery_of(store)).refresh()
        rows, details = rows_in(store), details_in(store)
        fresh = MemoryStore(clock=store.clock)
        Gallery(store, Target(fresh, is_output=True), PlainLinks("../")).refresh()
        assert rows == rows_in(fresh)
        assert details == details_in(fresh)
        assert index_of(store)["counts"] == index_of(fresh)["counts"]


def test_an_unreadable_object_is_named_and_hides_no_clip(store: CountingStore) -> None:
    made = make_output(store, 50)
    store.put(record_key(made.committed[0]), b"{}", "")
    failure = next(key for key in store.objects if made.quarantined[0] in key and "-1." in key)
    store.put(failure, b"[", "")
    gallery = gallery_of(store)
    for _ in range(2):  # the second refresh does not forget it
        assert gallery.refresh().num_trouble == 2
        named = {(one["clip_id"], one["key"]) for one in index_of(store)["trouble"]}
        assert named == {
            (made.committed[0], record_key(made.committed[0])),
            (made.quarantined[0], failure),
        }
    assert made.committed[0] not in rows_in(store)
    assert rows_in(store)[made.quarantined[0]]["num_failures"] == 1


def test_old_data_files_stay_for_open_pages_and_go_later(
    store: CountingStore, clock: Clock
) -> None:
    make_output(store, 50)
    gallery = gallery_of(store)
    names: list[str] = []
    for turn in range(3):
        commit(store, spec(f"new{turn}"))
        gallery.refresh()
        names.append(index_of(store)["parts"][0]["file"])
    assert {f"report/data/{name}" for name in names} <= set(store.objects)
    clock.now += KEEP_S
    commit(store, spec("last"))
    gallery.refresh()
    kept = {name for name in names if f"report/data/{name}" in store.objects}
    assert kept == {names[-1]}  # the index before names it


@pytest.mark.parametrize("file", ["details-", "part-", "index.js"])
def test_a_refresh_that_breaks_off_leaves_the_gallery_as_it_was(
    store: CountingStore, file: str
) -> None:
    make_output(store, 50)
    gallery = gallery_of(store)
    gallery.refresh()
    before, rows = store.objects["report/data/index.js"].body, rows_in(store)
    new = commit(store, spec("new"))
    store.fails_at = file
    with pytest.raises(StoreUnavailableError):
        gallery.refresh()
    assert store.objects["report/data/index.js"].body == before
    assert rows_in(store) == rows
    store.fails_at = ""
    gallery.refresh()
    assert new.clip_id in rows_in(store)


@pytest.mark.parametrize("harm", ["removed", "changed", "index"])
def test_a_gallery_whose_files_another_program_harmed_is_made_anew(
    store: CountingStore, harm: str
) -> None:
    make_output(store, 50)
    gallery = gallery_of(store)
    gallery.refresh()
    rows, index = rows_in(store), index_of(store)
    key = f"report/data/{index['details' if harm == 'removed' else 'parts'][0]['file']}"
    if harm == "removed":
        store.delete(key)
    elif harm == "changed":
        store.put(key, b"nagfarm.part(0,{});\n", "")
    else:
        store.put("report/data/index.js", b'nagfarm.index({"version":1,"link_base":"../"});\n', "")
    new = commit(store, spec("new"))
    (gallery if harm == "removed" else gallery_of(store)).refresh()
    found = rows_in(store)
    assert found.pop(new.clip_id)["state"] == "committed"
    assert found == rows


def test_the_keys_of_the_gallery_are_known(store: CountingStore) -> None:
    make_output(store, 50)
    gallery_of(store).refresh()
    keys = [key for key in store.objects if key.startswith("report/")]
    assert keys
    for key in keys:
        parsed = parse_key(key)
        assert parsed is not None
        assert parsed.kind == "report"
