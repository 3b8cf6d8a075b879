"""The objects of an output that are no longer needed, and their removal.

Decides which objects are garbage, and looks again before each removal. It spares young objects,
because the commit of their clip may still be under way; they age by the store's clock alone. An MP4
that a record names is never garbage, nor are its poster and thumbnail. The command `gc`
decides who may remove objects and when; it holds the output's lease meanwhile. `input_garbage`
decides about the images and videos that clips begin with.

MP4s are listed before records: the record of a clip that is committed in between is in the second
listing, so its MP4 is spared.
"""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from jobs.digests import DigestSet, IdSet, digest_of
from jobs.errors import ObjectMissingError, RecordError
from jobs.records.commit import committed_ids, read_record
from jobs.records.keys import (
    DIGEST_DIGITS,
    KeyKind,
    ParsedKey,
    failure_key,
    list_keys,
    list_objects,
    record_key,
)
from jobs.report.target import is_left_over
from jobs.store.store import Store
from jobs.store.uri import StoredObject

OF_MP4S: tuple[KeyKind, ...] = ("clip", "poster")  # kept as long as a record names the MP4
OF_REFUSED_CLIPS: tuple[KeyKind, ...] = ("latents", "refused clip")
REASONS: dict[KeyKind, str] = {
    "clip": "no record names this MP4",
    "poster": "a poster or thumbnail of an MP4 that no record names",
    "latents": "latents of a clip that is committed, or of an attempt without a record",
    "refused clip": "a refused MP4 of a clip that is committed, or of an attempt without a record",
    "quarantine": "quarantined, but committed since",
    "score": "a score of a clip that is not committed",
    "report": "a data file of the gallery that its index does not name",
    "input": "an uploaded image or video that no clip names",
    "access check": "left over by a check of the store",
}


@dataclass(frozen=True, slots=True)
class Garbage:
    """One object that may be removed."""

    parsed: ParsedKey
    stored: StoredObject

    @property
    def kind(self) -> KeyKind:
        return self.parsed.kind

    @property
    def clip_id(self) -> str:
        """The clip that the object belongs to; empty if it belongs to none or to several."""
        return self.parsed.clip_id


@dataclass(frozen=True)
class Removed:
    """The result of a removal.

    Args:
        num_spared: objects that were in use, young or gone at the second look.
    """

    num_removed: int = 0
    num_bytes: int = 0
    num_spared: int = 0

    def __add__(self, other: "Removed") -> "Removed":
        return Removed(
            self.num_removed + other.num_removed,
            self.num_bytes + other.num_bytes,
            self.num_spared + other.num_spared,
        )


def find_garbage(store: Store, older_than_s: float) -> list[Garbage]:
    """Return every object that may be removed.

    Args:
        older_than_s: age by the store's clock; younger objects are spared.
    """
    written_before = store.now() - older_than_s
    with_mp4, several, mp4s = IdSet(), set[str](), DigestSet()
    for parsed in list_keys(store, "clip"):
        mp4s.add(_digest(parsed))
        if not with_mp4.add(parsed.clip_id):
            several.add(parsed.clip_id)
    others = [
        one
        for kind in (*OF_REFUSED_CLIPS, "quarantine", "score", "report", "access check")
        for one in listed(store, kind)
        if one.stored.modified_at <= written_before
    ]
    committed = committed_ids(store)
    found = [
        one
        for listing in (
            unreferenced(store, with_mp4, several, committed),
            posters_left_over(store, mp4s, several, committed),
        )
        for one in listing
        if one.stored.modified_at <= written_before
    ]
    return found + [one for one in others if is_garbage(store, one, committed)]


def unreferenced(
    store: Store, with_mp4: AbstractSet[str], several: AbstractSet[str], committed: AbstractSet[str]
) -> Iterator[Garbage]:
    """Yield the MP4s that no record names.

    The only MP4 of a committed clip counts as the named one, without reading the record, because an
    output holds a million of these. If the record names another MP4, that one is missing, and the
    only one left is worth keeping. So the MP4s are listed again only if others are there.

    Args:
        with_mp4: the clips with an MP4, which were listed before the records.
        several: the clips with several MP4s.
    """
    if not several and all(clip_id in committed for clip_id in with_mp4):
        return
    named = dict[str, str | None]()
    for one in listed(store, "clip"):
        clip_id = one.clip_id
        if clip_id not in with_mp4 or (clip_id in committed and clip_id not in several):
            continue
        if clip_id not in committed:
            yield one
            continue
        if clip_id not in named:
            named[clip_id] = _named(store, clip_id)
        if named[clip_id] not in (None, one.parsed.digest):
            yield one


def posters_left_over(
    store: Store, mp4s: DigestSet, several: AbstractSet[str], committed: AbstractSet[str]
) -> Iterator[Garbage]:
    """Yield the posters and thumbnails of MP4s that no record names.

    As with MP4s, a record is read only if the poster is not beside the only MP4 of its clip.

    Args:
        mp4s: every MP4, listed before the records.
        several: the clips with several MP4s.
    """
    named = dict[str, str | None]()
    for one in listed(store, "poster"):
        clip_id = one.clip_id
        if clip_id not in committed:
            yield one
        elif clip_id in several or _digest(one.parsed) not in mp4s:
            if clip_id not in named:
                named[clip_id] = _named(store, clip_id)
            if named[clip_id] not in (None, one.parsed.digest):
                yield one


def _digest(parsed: ParsedKey) -> bytes:
    """Return the same digest for an MP4, its poster and its thumbnail."""
    return digest_of(f"{parsed.clip_id}/{parsed.digest}")


def _named(store: Store, clip_id: str) -> str | None:
    """Return the digits in the key of the MP4 that a record names; None if they are unknown."""
    try:
        return read_record(store, clip_id).sha256[:DIGEST_DIGITS]
    except (RecordError, ObjectMissingError):
        return None


def is_garbage(store: Store, one: Garbage, committed: AbstractSet[str]) -> bool:
    """Return True if an object other than an MP4 and its posters may be removed."""
    parsed = one.parsed
    if parsed.kind == "report":
        return is_left_over(store, parsed.key)
    if parsed.kind == "score":
        return parsed.clip_id not in committed
    if parsed.kind == "access check" or parsed.clip_id in committed:
        return True
    return parsed.kind in OF_REFUSED_CLIPS and not store.exists(
        failure_key(parsed.clip_id, parsed.run_id, parsed.attempt)
    )


def remove_garbage(
    store: Store, garbage: Iterable[Garbage], older_than_s: float, before_each: Callable[[], None]
) -> Removed:
    """Remove the objects that are garbage at a second look too.

    Args:
        older_than_s: as for `find_garbage`.
        before_each: called before each removal; it raises to end the removal.
    """
    num_removed = num_bytes = num_spared = 0
    written_before = store.now() - older_than_s
    for one in garbage:
        before_each()
        if is_still_garbage(store, one, written_before):
            store.delete(one.stored.key)
            num_removed += 1
            num_bytes += one.stored.num_bytes
        else:
            num_spared += 1
    return Removed(num_removed, num_bytes, num_spared)


def is_still_garbage(store: Store, one: Garbage, written_before: float) -> bool:
    """Look at an object once more: first at its age, then at the record of its clip.

    The age comes first because a clip that is rendered again has the same MP4, which its upload
    makes young; the record is written after the MP4.
    """
    key = one.stored.key
    now = next((stored for stored in store.entries(key) if stored.key == key), None)
    if now is None or now.modified_at > written_before:
        return False
    if one.kind not in OF_MP4S:
        committed = (
            {one.clip_id} if one.clip_id and store.exists(record_key(one.clip_id)) else set[str]()
        )
        return is_garbage(store, one, committed)
    # `exists` lists: to credentials that may list only a part, S3 answers 403 for a missing key.
    if not store.exists(record_key(one.clip_id)):
        return True
    try:
        return read_record(store, one.clip_id).sha256[:DIGEST_DIGITS] != one.parsed.digest
    except RecordError:
        return False


def listed(store: Store, kind: KeyKind) -> Iterable[Garbage]:
    """Yield the objects of one kind as candidates."""
    return (Garbage(parsed, stored) for parsed, stored in list_objects(store, kind))
