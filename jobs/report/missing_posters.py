"""Posters and thumbnails of clips that were committed without: those of older versions, or lost.

Decides which clips get them. Workers make those of new clips while they have the frames.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.errors import EncodeError, ObjectMissingError, RecordError
from jobs.media.posters import posters_of_mp4
from jobs.records.keys import (
    KeyKind,
    ParsedKey,
    parse_key,
    poster_key,
    record_key,
    thumbnail_key,
)
from jobs.records.listing import ClipObjects, list_clips
from jobs.records.pictures import write_posters
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord
from jobs.store.parts import in_parallel
from jobs.store.store import Store

NUM_THREADS = 4  # each waits for an ffmpeg, which has threads of its own
MAX_MP4_BYTES = 1_000_000_000


@dataclass(frozen=True)
class PosterResult:
    """The result for one clip.

    Args:
        is_made: False also for a clip that had its posters: another MP4 of it lacks them.
        trouble: the reason why it has no poster; empty if it has one now.
    """

    clip_id: str
    is_made: bool = False
    trouble: str = ""


def make_missing_posters(store: Store) -> Iterator[PosterResult]:
    """Make the posters that are missing, and yield each clip that had none.

    Raises:
        StoreRefusedError: the store takes no object, as from credentials that may only read.
        StoreError: the store does not answer.
        EncoderKilledError, OSError: ffmpeg was killed, or this machine lacks memory or files.
    """
    maker = _PosterMaker(store)
    without = (
        clip for clip in list_clips(store, kinds=("record", "clip", "poster")) if _lacks_any(clip)
    )
    yield from in_parallel(maker.make, without, NUM_THREADS)


def _lacks_any(clip: ClipObjects) -> bool:
    """Return True for a committed clip of which some MP4 has no poster or thumbnail."""
    if not clip.of_kind("record"):
        return False
    posters = {parsed.digest for parsed in _parsed(clip, "poster")}
    mp4s = {parsed.digest for parsed in _parsed(clip, "clip")}
    return not mp4s <= posters or len(clip.of_kind("poster")) < 2 * len(mp4s)


def _parsed(clip: ClipObjects, kind: KeyKind) -> list[ParsedKey]:
    return [parsed for one in clip.of_kind(kind) if (parsed := parse_key(one.key)) is not None]


class _PosterMaker:
    """Makes the posters of one clip; several threads share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._reader = ObjectReader(store)

    def make(self, clip: ClipObjects) -> PosterResult:
        try:
            record = self._reader.read_as(record_key(clip.clip_id), ClipRecord.from_json)
            own = clip.clip_id, record.sha256
            keys = {stored.key for stored in clip.of_kind("poster")}
            if {poster_key(*own), thumbnail_key(*own)} <= keys:  # another MP4 lacks them
                return PosterResult(clip.clip_id)
            posters = posters_of_mp4(self._mp4(record), record.num_frames)
        except (ObjectMissingError, RecordError, UnreadableError, EncodeError) as error:
            return PosterResult(clip.clip_id, trouble=str(error))
        write_posters(self._store, *own, posters)
        return PosterResult(clip.clip_id, is_made=True)

    def _mp4(self, record: ClipRecord) -> bytes:
        if record.num_bytes > MAX_MP4_BYTES:
            raise RecordError(f"{record.key} is larger than {MAX_MP4_BYTES:,} bytes")
        file = io.BytesIO()
        if self._reader.digest_into(record.key, record.num_bytes, file)[1] != record.sha256:
            raise RecordError(f"{record.key} has other bytes than its record says")
        return file.getvalue()
