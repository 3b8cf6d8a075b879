"""The promises of an output, decided from values: which objects and statements break one.

Reads nothing from the store; `audit` does that. The text of a finding may come from strangers.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jobs.clip_id import clip_id as clip_id_of
from jobs.records.keys import (
    KeyKind,
    clip_key,
    failure_key,
    parse_key,
    poster_key,
    record_key,
    thumbnail_key,
)
from jobs.records.listing import ClipObjects
from jobs.records.schema import ClipRecord
from jobs.store.uri import StoredObject
from jobs.upkeep.garbage import OF_MP4S, OF_REFUSED_CLIPS, REASONS

FindingKind = Literal[
    "lost", "unplanned", "unreadable", "mismatched", "missing", "damaged", "undecodable", "input",
    "orphan",
]  # fmt: skip
KINDS: dict[FindingKind, str] = {
    "lost": "a clip of the manifest is neither committed nor quarantined",
    "unplanned": "a record or a quarantine belongs to a clip that the manifest does not hold",
    "unreadable": "a record is damaged, or the store does not return an object that it lists",
    "mismatched": "a record contradicts its key, its request or the tags of its MP4",
    "missing": "the MP4 that a record names does not exist (render --repair)",
    "damaged": "an MP4 has another size or digest than its record (remove it, render --repair)",
    "undecodable": "an MP4 does not decode to the requested frames (--decode)",
    "input": "an image or a video that a clip begins with is missing or has other bytes",
    "orphan": "no record names an object, or a committed clip is quarantined",
}


@dataclass(frozen=True)
class Finding:
    """One broken promise.

    Args:
        clip_id: empty if the object belongs to no clip.
        key: the object at fault; empty if it is a missing record.
        message: may hold text from strangers.
    """

    kind: FindingKind
    clip_id: str
    key: str
    message: str


def find_contradictions(clip_id: str, record: ClipRecord) -> Iterator[str]:
    """Yield each statement of a record that its key or another of its statements contradicts."""
    where = record_key(clip_id)
    if record.clip_id != clip_id:
        yield f"{where} describes another clip, {record.clip_id}"
    described = clip_id_of(record.model, record.request, record.tokens)
    if described != clip_id:
        yield f"{where}: its model, request and tokens are those of clip {described}"
    shape = record.request.shape
    requested = (shape.num_frames, shape.width, shape.height, record.request.fps)
    if (record.num_frames, record.width, record.height, record.fps) != requested:
        yield f"{where}: frames, size or rate differ from its request"
    if record.audio is not None and not record.request.audio:
        yield f"{where}: the clip has sound, and its request wants none"


def find_orphans(
    clip: ClipObjects, record: ClipRecord | None, *, is_committed: bool
) -> Iterator[tuple[StoredObject, str]]:
    """Yield the objects of a clip that nothing names, with the reason."""
    if record is not None or not is_committed:  # an unreadable record may name any of the MP4s
        for kind in OF_MP4S:
            for stored in clip.of_kind(kind):
                if record is None or not is_of(stored, record):
                    yield stored, REASONS[kind]
    kind_left: KeyKind = "quarantine" if is_committed else "score"
    for stored in clip.of_kind(kind_left):
        yield stored, REASONS[kind_left]
    failures = {stored.key for stored in clip.of_kind("failure")}
    for kind in OF_REFUSED_CLIPS:
        for stored in clip.of_kind(kind):
            parsed = parse_key(stored.key)
            assert parsed is not None  # as it was when it was listed
            failure = failure_key(parsed.clip_id, parsed.run_id, parsed.attempt)
            if is_committed or failure not in failures:
                yield stored, REASONS[kind]


def is_of(stored: StoredObject, record: ClipRecord) -> bool:
    """Return True for the MP4 that a record names and for its poster and thumbnail."""
    keys = (clip_key, poster_key, thumbnail_key)
    return stored.key in [key(record.clip_id, record.sha256) for key in keys]


def orphan(clip_id: str, stored: StoredObject, reason: str) -> Finding:
    """Return the finding about an object that nothing names."""
    return Finding("orphan", clip_id, stored.key, f"{stored.key}: {reason}")
