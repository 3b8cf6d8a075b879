"""What lies in an output and is of no use any more.

Decides what is garbage, looks again before each removal, and spares the young, of which a clip's commit may still be
under way. An MP4 that a record names is never garbage. Who may remove, and when, is for `store_commands`, which holds
the output's lease meanwhile.

MP4s are listed before records: one that is committed in between has its record listed, and is spared.
"""

import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.errors import ObjectMissingError, RecordError, RefusedError
from jobs.records.commit import committed_ids, read_record
from jobs.records.schema import record_key
from jobs.store.store import Store
from jobs.store.uri import StoredObject

Kind = Literal["clip", "latents", "quarantine", "access check"]
REASONS: dict[Kind, str] = {
    "clip": "no record names this MP4",
    "latents": "latents of a clip that is committed, or of an attempt without a record",
    "quarantine": "given up, but committed since",
    "access check": "left over by a check of the store",
}
CLIP_KEY = re.compile(r"clips/([0-9a-f]{32})/[0-9a-f]{16}\.mp4")
LATENTS_KEY = re.compile(r"failures/([0-9a-f]{32})/([^/]+)\.safetensors")
QUARANTINE_KEY = re.compile(r"quarantine/([0-9a-f]{32})\.json")
ACCESS_CHECK_KEY = re.compile(r"access-check-[0-9a-f]+()")


@dataclass(frozen=True)
class Garbage:
    """One object that may go. `clip_id` is empty where it is of no clip."""

    kind: Kind
    clip_id: str
    stored: StoredObject


@dataclass(frozen=True)
class Removed:
    """What came of a removal. Spared is what turned out to be in use, or young, at the second look."""

    num_removed: int = 0
    num_bytes: int = 0
    num_spared: int = 0


def find_garbage(store: Store, written_before: float) -> list[Garbage]:
    """Everything that may go.

    Args:
        written_before: seconds since the epoch; what was written later is young.
    """
    mp4s: defaultdict[str, list[Garbage]] = defaultdict(list)
    for one in listed(store, "clips/", CLIP_KEY, "clip"):
        mp4s[one.clip_id].append(one)
    others = [
        *listed(store, "failures/", LATENTS_KEY, "latents"),
        *listed(store, "quarantine/", QUARANTINE_KEY, "quarantine"),
        *listed(store, "access-check-", ACCESS_CHECK_KEY, "access check"),
    ]
    committed = committed_ids(store)
    found = [
        one
        for clip_id, of_clip in mp4s.items()
        for one in unnamed(store, of_clip, clip_id in committed)
    ]
    found += [
        one
        for one in others
        if one.stored.modified_at < written_before and is_garbage(store, one, committed)
    ]
    return [one for one in found if one.stored.modified_at < written_before]


def unnamed(store: Store, mp4s: list[Garbage], is_committed: bool) -> list[Garbage]:
    """Of one clip's MP4s those that its record does not name.

    The only MP4 of a committed clip is taken for the one that is named, without a look at the record: an output holds
    a million of these. Where that is wrong, the named one is missing, and the other is worth keeping.
    """
    if not is_committed:
        return mp4s
    if len(mp4s) == 1:
        return []
    clip_id = mp4s[0].clip_id
    try:
        named = read_record(store, clip_id).key
    except (RecordError, ObjectMissingError):
        return []  # whatever such a record names is not known
    return [one for one in mp4s if one.stored.key != named]


def is_garbage(store: Store, one: Garbage, committed: set[str]) -> bool:
    """Whether an object other than an MP4 may go."""
    if one.kind == "access check" or one.clip_id in committed:
        return True
    return one.kind == "latents" and not store.exists(
        one.stored.key.removesuffix(".safetensors") + ".json"
    )


def remove_garbage(
    store: Store, garbage: Iterable[Garbage], written_before: float, before_each: Callable[[], None]
) -> Removed:
    """Removes what is garbage at a second look too.

    Args:
        before_each: raises where the removal must end.
    """
    num_removed = num_bytes = num_spared = 0
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
    """Looks once more: first how old the object is, since a clip that is rendered again has the same MP4; then at the
    record, which comes after the MP4.
    """
    key = one.stored.key
    now = next((stored for stored in store.entries(key) if stored.key == key), None)
    if now is None or now.modified_at >= written_before:
        return False
    if one.kind != "clip":
        committed = (
            {one.clip_id} if one.clip_id and store.exists(record_key(one.clip_id)) else set[str]()
        )
        return is_garbage(store, one, committed)
    # by listing: where credentials may list only a part, S3 answers for a missing object that it is forbidden
    if not store.exists(record_key(one.clip_id)):
        return True
    try:
        return read_record(store, one.clip_id).key != key
    except RecordError:
        return False


def listed(store: Store, prefix: str, pattern: re.Pattern[str], kind: Kind) -> Iterator[Garbage]:
    for stored in store.entries(prefix):
        if found := pattern.fullmatch(stored.key):
            yield Garbage(kind, found[1], stored)


def remove_folders(folders: Iterable[Path]) -> Removed:
    """Removes spools of this machine, each with what is in it.

    Raises:
        RefusedError: the operating system does not let us.
    """
    num_removed = num_bytes = 0
    for folder in folders:
        size_bytes = folder_bytes(folder)
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RefusedError(
                f"cannot remove the spool {folder}: {error.strerror}; remove it by hand"
            ) from error
        num_removed += 1
        num_bytes += size_bytes
    return Removed(num_removed, num_bytes)


def folder_bytes(folder: Path) -> int:
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
