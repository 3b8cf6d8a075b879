"""The device that an output was rendered on, by its records."""

from jobs.records.keys import record_key
from jobs.records.listing import device_used
from tests.builders.records import commit
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore


def test_the_device_is_that_of_the_first_record_that_can_be_read() -> None:
    store = MemoryStore()
    assert device_used(store) is None
    broken, whole = sorted((spec("circle"), spec("square")), key=lambda one: one.clip_id)
    for one in (broken, whole):
        commit(store, one)
    assert device_used(store) == "cpu"
    key = record_key(whole.clip_id)
    store.put(key, store.get(key).replace(b'"cpu"', b'"NVIDIA H200"'), "application/json")
    store.put(record_key(broken.clip_id), b"{", "application/json")
    assert device_used(store) == "NVIDIA H200"
