"""Damaged clips: a record is there, and the MP4 that it names is not.

Decides how much is read to find them. A listing shows a committed clip without any MP4, which costs
no request a clip; to find a clip whose record names another MP4 than the one that is left, or an
MP4 of another size, each record has to be read. Only `verify` reads the MP4s themselves.
"""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from jobs.digests import IdSet
from jobs.errors import ObjectMissingError, RecordError
from jobs.records.commit import is_intact, read_record
from jobs.records.keys import list_keys, record_key
from jobs.records.listing import ClipObjects, list_clips
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord
from jobs.store.parts import in_parallel
from jobs.store.store import Store

NUM_THREADS = 8  # below the ten connections that boto3 keeps open


def is_committed(store: Store, clip_id: str) -> bool:
    """Return True if a clip has a record, and the MP4 that it names.

    A record that cannot be read counts: a plan does not read it either.
    """
    if not store.exists(record_key(clip_id)):
        return False
    try:
        return is_intact(store, read_record(store, clip_id))
    except (RecordError, ObjectMissingError):
        return True


def without_mp4(store: Store, committed: AbstractSet[str]) -> set[str]:
    """Return the clips that have a record and no MP4 at all, from a listing of the MP4s.

    Args:
        committed: ids of the clips whose records were listed before. In this order a clip that is
            committed meanwhile is never called damaged, because its MP4 comes first.
    """
    with_mp4 = IdSet(parsed.clip_id for parsed in list_keys(store, "clip"))
    return {clip_id for clip_id in committed if clip_id not in with_mp4}


def find_damaged(store: Store) -> Iterator[str]:
    """Yield the clips whose record names an MP4 that is not there in its size; read every record.

    Raises:
        StoreError: the store does not answer, or does not list keys in order.
    """
    reader = ObjectReader(store)

    def damaged(clip: ClipObjects) -> str | None:
        if not clip.of_kind("record"):
            return None
        try:
            record = reader.read_as(record_key(clip.clip_id), ClipRecord.from_json)
        except (ObjectMissingError, RecordError, UnreadableError):
            return None  # it may name any of the MP4s
        found = {(stored.key, stored.num_bytes) for stored in clip.of_kind("clip")}
        if (record.key, record.num_bytes) in found or is_intact(store, record):
            return None
        return clip.clip_id

    yield from filter(None, in_parallel(damaged, list_clips(store), NUM_THREADS))
