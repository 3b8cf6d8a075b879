"""Uploaded images and videos that no clip of an output names: found, and removed.

Records, quarantines and failures name the inputs of their clip. A digest anywhere in one of them
counts, so that those of other versions of nagfarm count too; one that cannot be read may name any
input, so that all are spared. A run uploads an input long before the record of its clip is written,
or finds it there, however old it is. So the names are read once more while the command holds the
output's lease, and no run can begin until the last removal. The pending clips of a stopped run name
nothing: the next run uploads their inputs again, unless a manifest keeps them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from jobs.digests import Sha256Set
from jobs.errors import ObjectMissingError, RecordError
from jobs.records.keys import KeyKind, list_keys, list_objects
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.strict_json import load
from jobs.store.parts import NUM_THREADS, in_parallel
from jobs.store.store import Store
from jobs.upkeep.garbage import Garbage, Removed

NAMING: tuple[KeyKind, ...] = ("record", "quarantine", "failure")
_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


@dataclass(frozen=True)
class UnnamedInputs:
    """The inputs that may be removed.

    Args:
        unreadable: the object that may name any input, and its fault; None if all were read.
    """

    garbage: tuple[Garbage, ...]
    unreadable: str | None = None


def find_unnamed_inputs(store: Store, older_than_s: float, kept: Sha256Set) -> UnnamedInputs:
    """Return the inputs that no clip of the output names.

    Args:
        older_than_s: age by the store's clock; younger objects are spared.
        kept: inputs that are spared in any case.
    """
    written_before = store.now() - older_than_s

    def old() -> Iterator[Garbage]:
        for parsed, stored in list_objects(store, "input"):
            if stored.modified_at <= written_before and parsed.sha256 not in kept:
                yield Garbage(parsed, stored)

    listed = Sha256Set()
    for one in old():
        listed.add(one.parsed.sha256)
    try:
        named = _named(store, listed, lambda: None)
    except UnreadableError as error:
        return UnnamedInputs((), str(error))
    if len(named) == len(listed):
        return UnnamedInputs(())
    sha256s = ((one, one.parsed.sha256) for one in old())
    return UnnamedInputs(tuple(one for one, key in sha256s if key in listed and key not in named))


def remove_unnamed_inputs(
    store: Store,
    garbage: Sequence[Garbage],
    older_than_s: float,
    before_each: Callable[[], None],
) -> Removed:
    """Remove the inputs that no clip names at a second look too.

    Args:
        older_than_s: as for `find_unnamed_inputs`.
        before_each: called before each object that is read or removed; it raises to end the
            removal, once another driver may write to the output.
    """
    listed = Sha256Set()
    for one in garbage:
        listed.add(one.parsed.sha256)
    try:
        named = _named(store, listed, before_each)
    except UnreadableError:
        return Removed(num_spared=len(garbage))
    num_removed = num_bytes = 0
    written_before = store.now() - older_than_s
    for one in garbage:
        before_each()
        key = one.stored.key
        now = next((stored for stored in store.entries(key) if stored.key == key), None)
        if now is None or now.modified_at > written_before or one.parsed.sha256 in named:
            continue
        store.delete(key)
        num_removed += 1
        num_bytes += one.stored.num_bytes
    return Removed(num_removed, num_bytes, len(garbage) - num_removed)


def _named(store: Store, listed: Sha256Set, before_each: Callable[[], None]) -> Sha256Set:
    """Return those of some inputs that a clip names; read no further once all are named.

    Raises:
        UnreadableError: an object may name any of them.
    """
    reader, named = ObjectReader(store), Sha256Set()

    def read(key: str) -> list[str]:
        before_each()
        try:
            return reader.read_as(key, _digests)
        except ObjectMissingError:  # removed since it was listed
            return []
        except (RecordError, UnreadableError) as error:
            raise UnreadableError(f"{key}: {error}") from error

    for kind in NAMING:
        if len(named) == len(listed):
            break
        for digests in in_parallel(read, (one.key for one in list_keys(store, kind)), NUM_THREADS):
            for sha256 in digests:
                if sha256 in listed:
                    named.add(sha256)
            if len(named) == len(listed):
                break
    return named


def _digests(content: bytes) -> list[str]:
    """Return all digests in a whole document.

    Raises:
        RecordError: it is damaged.
    """
    load(content)
    return [found.decode() for found in _DIGEST.findall(content)]
