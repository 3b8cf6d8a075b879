"""The index of names: every further name under which a manifest asked for a committed clip.

A record holds the name of the row for which the clip was rendered. If another row, of this manifest
or a later one, asks for the same clip under another name, an object of the index holds that name.
Its key says all, so that a listing is enough to read the index.
"""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from jobs.digests import DigestSet, digest_of
from jobs.errors import ObjectExistsError, ObjectMissingError, RecordError
from jobs.records.commit import JSON
from jobs.records.keys import list_keys, name_key, record_key
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import SCHEMA_VERSION, ClipRecord, utc_iso
from jobs.records.strict_json import dump, from_dataclass
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.types import ClipSpec

NUM_THREADS = 8  # below the ten connections that boto3 keeps open


@dataclass(frozen=True)
class NameRecord:
    """A further name of a committed clip, and the notes of the row that gave it."""

    clip_id: str
    name: str
    meta: Mapping[str, str]
    recorded_at: str
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))


def count_names(store: Store) -> int:
    """Return the number of names in the index."""
    return sum(1 for _ in list_keys(store, "name"))


def record_names(store: Store, wanted: Iterable[ClipSpec]) -> int:
    """Write names to the index, unless they are there or in the record of their clip.

    Each write is conditional like the commit, so that a name is never replaced, and several drivers
    may write at once. A clip without a readable record gets no name. It costs the reading of one
    record for each name that the index does not have.

    Args:
        wanted: clips under their names; each pair once is enough.

    Returns:
        The number of names that were written.

    Raises:
        StoreError: the store does not answer or refuses; calling again goes on.
    """
    seen = DigestSet()
    for parsed in list_keys(store, "name"):
        seen.add(_digest(parsed.clip_id, parsed.name))
    reader = ObjectReader(store)

    def record(clip: ClipSpec) -> bool:
        clip_id, name = clip.clip_id, clip.name
        try:
            found = reader.read_as(record_key(clip_id), ClipRecord.from_json)
        except (ObjectMissingError, RecordError, UnreadableError):
            return False
        if found.name == name:
            return False
        with suppress(ObjectExistsError):  # another driver was faster
            content = NameRecord(clip_id, name, clip.meta, utc_iso(time.time())).to_json()
            store.put_if_absent(name_key(clip_id, name), content, JSON)
            return True
        return False

    new = (clip for clip in wanted if seen.add(_digest(clip.clip_id, clip.name)))
    return sum(in_parallel(record, new, NUM_THREADS))


def mp4_keys(store: Store) -> dict[str, str]:
    """Return the key of the MP4 of each clip; the record is read if a clip has several."""
    keys: dict[str, str] = {}
    several = set[str]()
    for parsed in list_keys(store, "clip"):
        if keys.setdefault(parsed.clip_id, parsed.key) != parsed.key:
            several.add(parsed.clip_id)
    reader = ObjectReader(store)

    def named(clip_id: str) -> tuple[str, str]:
        with suppress(ObjectMissingError, RecordError, UnreadableError):
            return clip_id, reader.read_as(record_key(clip_id), ClipRecord.from_json).key
        return clip_id, ""

    return keys | dict(in_parallel(named, several, NUM_THREADS))


def _digest(clip_id: str, name: str) -> bytes:
    return digest_of(f"{clip_id} {name}")
