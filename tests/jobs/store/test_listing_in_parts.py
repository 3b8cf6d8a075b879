"""A long listing is asked for in parts, and holds the same objects."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from jobs.errors import StoreUnavailableError
from jobs.records.commit import committed_ids
from jobs.records.keys import list_objects
from jobs.settings.run_config import StoreConfig
from jobs.store.parts import HEX_DIGITS, MAX_PART_KEYS, parts_of
from jobs.store.store import open_store
from jobs.store.uri import StoredObject
from tests.fakes.s3 import Answer, FakeS3, Request, Stored, error, in_process

IDS = [hashlib.md5(bytes([number])).hexdigest() for number in range(60)]


@dataclass
class Asked(FakeS3):
    """An S3 with small pages that notes the prefixes that were listed.

    Args:
        broken: prefix that it refuses to list.
    """

    broken: str = ""
    prefixes: list[str] = field(default_factory=list[str])

    def answer(self, request: Request) -> Answer:
        prefix = request.query.get("prefix", "")
        self.prefixes.append(prefix)
        return error(503, "SlowDown") if prefix == self.broken else super().answer(request)


def server_with(ids: list[str], broken: str = "") -> Asked:
    keys = [f"renders/x/records/{one}.json" for one in ids]
    foreign = ["renders/x/records/README.txt", "renders/x/records/zz.json"]
    objects = {key: Stored(b"{}", 1_000.0) for key in (*keys, *foreign)}
    return Asked(objects=objects, page_size=7, broken=broken)


def test_a_long_listing_in_parts_has_every_clip_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with(IDS)
    with in_process(server, monkeypatch):
        store = open_store("s3://renders/x", StoreConfig())
        listed = [parsed.clip_id for parsed, _ in list_objects(store, "record")]
        assert sorted(listed) == sorted(IDS)
        assert set(server.prefixes) == {"x/records/", *(f"x/records/{d}" for d in HEX_DIGITS)}
        assert committed_ids(store) == set(IDS)


def test_a_listing_of_one_page_is_one_request(monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_with(IDS[:4])
    with in_process(server, monkeypatch):
        store = open_store("s3://renders/x", StoreConfig())
        assert committed_ids(store) == set(IDS[:4])
        assert server.prefixes == ["x/records/"]


def test_a_part_that_cannot_be_listed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    config = StoreConfig(max_attempts=1)
    with (
        in_process(server_with(IDS, broken="x/records/9"), monkeypatch),
        pytest.raises(StoreUnavailableError),
    ):
        committed_ids(open_store("s3://renders/x", config))


def test_a_folder_is_listed_at_once(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri(), StoreConfig())
    for one in IDS:
        store.put(f"records/{one}.json", b"{}", "application/json")
    assert committed_ids(store) == set(IDS)


@pytest.mark.parametrize(
    ("last", "num_parts"),
    [("80000000.json", 16), ("00400000.json", 256), ("ffffffff.json", 16), ("README", 256)],
)
def test_the_number_of_parts_follows_from_the_share_that_a_page_covers(
    last: str, num_parts: int
) -> None:
    page = [StoredObject(f"records/{last}", 2, 0.0)] * 1000
    parts = parts_of("records/", page)
    assert len(parts) == len(set(parts)) == num_parts
    covered = {part.removeprefix("records/")[0] for part in parts}
    assert covered == set(HEX_DIGITS)
    assert MAX_PART_KEYS == 10_000
