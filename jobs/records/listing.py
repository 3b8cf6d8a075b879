"""The objects of one clip after another, merged from the listings of an output.

A store lists keys in order, so that several listings and the sorted clips of a manifest can be
merged clip by clip. Memory holds one page of each listing, however many clips an output has.
"""

import contextlib
import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from jobs.errors import ObjectMissingError, RecordError, StoreRefusedError
from jobs.records.commit import read_record
from jobs.records.keys import PREFIXES, KeyKind, list_keys, parse_key
from jobs.store.store import Store
from jobs.store.uri import StoredObject

LISTED: tuple[KeyKind, ...] = ("record", "clip", "name", "quarantine", "failure")
BESIDE: tuple[KeyKind, ...] = ("poster", "score")  # no state of a clip depends on them
WRITTEN_BY_RUNS: tuple[KeyKind, ...] = ("run file", *LISTED)  # the run's own file first


@dataclass(frozen=True)
class ListedObject:
    """An object and its kind, which is "foreign" for a key that nagfarm does not write."""

    kind: KeyKind | Literal["foreign"]
    stored: StoredObject


@dataclass(frozen=True)
class ClipObjects:
    """The objects of one clip, or one foreign object.

    Args:
        clip_id: empty for a foreign object.
        name: name of the clip in the manifest; None if the manifest does not hold it.
    """

    clip_id: str
    name: str | None
    objects: tuple[ListedObject, ...]

    def of_kind(self, kind: KeyKind | Literal["foreign"]) -> list[StoredObject]:
        return [one.stored for one in self.objects if one.kind == kind]


def has_run(store: Store) -> bool:
    """Return True if a run has written to the output; a lease or an access check is not enough."""
    return any(True for kind in WRITTEN_BY_RUNS for _ in store.keys(PREFIXES[kind]))


def device_used(store: Store) -> str | None:
    """Return the device of the first committed clip whose record can be read; None without one."""
    for parsed in list_keys(store, "record"):
        with contextlib.suppress(ObjectMissingError, RecordError):
            return read_record(store, parsed.clip_id).worker.device
    return None


def list_clips(
    store: Store, planned: Iterable[tuple[str, str]] = (), kinds: Iterable[KeyKind] = LISTED
) -> Iterator[ClipObjects]:
    """Yield every clip of an output and of a manifest, with its objects, in the order of clip ids.

    Args:
        planned: id and name of each clip of the manifest, in the order of ids.
        kinds: the listings that are merged, one for each prefix; latents and refused MP4s come
            with failures.

    Raises:
        StoreRefusedError: the store does not list keys in order.
    """
    listings = [_in_order(store, PREFIXES[kind]) for kind in kinds]
    merged = heapq.merge(*listings, planned, key=lambda entry: entry[0])
    for clip_id, group in groupby(merged, key=lambda entry: entry[0]):
        name: str | None = None
        objects: list[ListedObject] = []
        for _, entry in group:
            if isinstance(entry, str):
                name = entry
            elif entry.kind == "foreign":  # not held back: an output may have any number of them
                yield ClipObjects("", None, (entry,))
            else:
                objects.append(entry)
        if objects or name is not None:
            yield ClipObjects(clip_id, name, tuple(objects))


def _in_order(store: Store, prefix: str) -> Iterator[tuple[str, ListedObject]]:
    """Yield the objects below a prefix, each with the id of its clip.

    A foreign object gets the id of the clip that is listed before it.
    """
    clip_id = ""
    for stored in store.entries(prefix):
        parsed = parse_key(stored.key)
        if parsed is None or not parsed.clip_id:
            yield clip_id, ListedObject("foreign", stored)
            continue
        if parsed.clip_id < clip_id:
            raise StoreRefusedError(
                f"{store.uri} does not list its keys in order: got {stored.key} after those of "
                f"clip {clip_id}; expected the order of S3's general purpose buckets"
            )
        clip_id = parsed.clip_id
        yield clip_id, ListedObject(parsed.kind, stored)
