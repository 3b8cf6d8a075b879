"""The index of names: which names are written, and what each costs."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from jobs.errors import RecordError
from jobs.records.commit import upload_clip
from jobs.records.keys import list_keys, name_key, record_key
from jobs.records.names import NameRecord, count_names, mp4_keys, record_names
from jobs.records.strict_json import dump, load, to_dataclass
from jobs.upkeep.audit import AuditParams, audit_output
from tests.builders.records import commit
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

CIRCLE = replace(spec("circle"), name="hero")
SQUARE = replace(spec("square"), name="square")


class CountingStore(MemoryStore):
    num_read = 0

    def chunks(self, key: str) -> Iterator[bytes]:
        self.num_read += 1
        return super().chunks(key)


def index(store: MemoryStore) -> list[tuple[str, str]]:
    return [(parsed.clip_id, parsed.name) for parsed in list_keys(store, "name")]


def test_further_names_of_committed_clips_are_recorded_and_no_others() -> None:
    store = MemoryStore()
    commit(store, CIRCLE)
    wanted = [
        CIRCLE,  # the name in the record
        replace(CIRCLE, name="second", meta={"shot": "12"}),
        replace(CIRCLE, name="Third.one-"),
        replace(CIRCLE, name="second"),
        replace(SQUARE, name="not-committed"),
    ]
    assert record_names(store, wanted) == 2
    assert index(store) == [(CIRCLE.clip_id, "Third.one-"), (CIRCLE.clip_id, "second")]
    assert count_names(store) == 2
    found = store.get(name_key(CIRCLE.clip_id, "second"))
    assert to_dataclass(NameRecord, load(found)).meta == {"shot": "12"}
    assert record_names(store, wanted) == 0
    assert store.get(name_key(CIRCLE.clip_id, "second")) == found
    assert not any(clip.findings for clip in audit_output(store, AuditParams(store.now())))


def test_a_record_whose_times_add_up_to_infinity_gets_no_name_and_stops_no_other() -> None:
    store = MemoryStore()
    for clip in (CIRCLE, SQUARE):
        commit(store, clip)
    key = record_key(CIRCLE.clip_id)
    document = load(store.get(key))
    step = {"stage": "denoise", "started_at": 0.0, "duration_s": 1.2e308, "step": 0}
    store.put(key, dump(document | {"timings": [step, step]}), "application/json")
    assert record_names(store, [replace(clip, name="new") for clip in (CIRCLE, SQUARE)]) == 1
    assert index(store) == [(SQUARE.clip_id, "new")]


def test_a_name_in_the_index_costs_no_reading() -> None:
    store = CountingStore()
    commit(store, CIRCLE)
    wanted = [replace(CIRCLE, name=f"name-{number}") for number in range(5)]
    assert record_names(store, wanted) == 5
    assert store.num_read == 5
    assert record_names(store, wanted) == 0
    assert store.num_read == 5


def test_among_several_drivers_each_name_is_written_once() -> None:
    store = MemoryStore()
    commit(store, CIRCLE)
    wanted = [replace(CIRCLE, name=f"name-{number}") for number in range(20)]
    with ThreadPoolExecutor(4) as threads:
        written = list(threads.map(lambda _: record_names(store, wanted), range(4)))
    assert sum(written) == 20
    assert count_names(store) == 20


def test_a_clip_with_an_unreadable_record_gets_no_name() -> None:
    store = MemoryStore()
    commit(store, CIRCLE)
    store.put(record_key(CIRCLE.clip_id), b"{", "application/json")
    assert record_names(store, [replace(CIRCLE, name="second")]) == 0


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../x", "a b", "a\n", "x" * 129])
def test_a_name_of_another_form_has_no_key(name: str) -> None:
    with pytest.raises(RecordError, match="cannot be the name of a clip"):
        name_key(CIRCLE.clip_id, name)


def test_the_mp4_of_a_clip_is_that_of_its_record() -> None:
    store = MemoryStore()
    one, other = commit(store, CIRCLE), commit(store, SQUARE)
    for body in (b"an attempt that came second", b"a third"):
        upload_clip(store, CIRCLE.clip_id, body)
    assert mp4_keys(store) == {CIRCLE.clip_id: one.key, SQUARE.clip_id: other.key}
