"""Clips that no manifest names any more: found, and removed with all of their objects.

Decides which clips may be removed. A clip whose record, quarantine or failure cannot be read is
spared, since another version of nagfarm may have written it; so is one with a young object, since a
worker of a driver that died may still commit it. The command `prune` holds the output's lease.

The record goes first. A crash behind it leaves an MP4 that no record names, which is garbage, and
never a record without its MP4. The MP4 goes only after the second look of `jobs.upkeep.garbage`, so
that a clip which is committed again in between stays whole. Failures go before their latents and
refused MP4s, which are garbage without them.
"""

from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from jobs.overview.clips import NUM_THREADS, ClipReader, OutputClip, Unreadable
from jobs.records.keys import KeyKind, parse_key
from jobs.records.listing import BESIDE, LISTED, ClipObjects, ListedObject, list_clips
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.upkeep.garbage import OF_MP4S, OF_REFUSED_CLIPS, Garbage, is_still_garbage

ORDER: tuple[KeyKind, ...] = (
    "record", *OF_MP4S, "failure", *OF_REFUSED_CLIPS, "name", "quarantine", "score",
)  # fmt: skip
assert {*LISTED, *BESIDE} <= {*ORDER}, "every object of a clip is removed"


@dataclass(frozen=True)
class Kept:
    """A clip of the output that the manifest names."""

    clip_id: str


@dataclass(frozen=True)
class Spared:
    """A clip that the manifest does not name, and that stays.

    Args:
        is_young: True if it may be removed later; False if it cannot be judged.
    """

    clip_id: str
    reason: str
    is_young: bool


@dataclass(frozen=True)
class Unnamed:
    """A clip that the manifest does not name and that may be removed.

    Args:
        clip: None for what is left of a clip: MP4s or names without a record.
    """

    objects: ClipObjects = field(repr=False)
    clip: OutputClip | None

    @property
    def num_bytes(self) -> int:
        """The size of all of its objects."""
        return sum(one.stored.num_bytes for one in self.objects.objects)


def sort_clips(
    store: Store, named: AbstractSet[str], written_before: float
) -> Iterator[Kept | Spared | Unnamed]:
    """Yield each clip of the output, in the order of ids; objects of no clip are left out.

    Args:
        named: ids of the clips of the manifest.
        written_before: seconds since the epoch by the store's clock; clips with younger objects are
            spared.
    """
    reader = ClipReader(store, with_failures=True)

    def judge(objects: ClipObjects) -> Kept | Spared | Unnamed | None:
        clip_id = objects.clip_id
        if not clip_id:
            return None
        if clip_id in named:
            return Kept(clip_id)
        if any(one.stored.modified_at > written_before for one in objects.objects):
            return Spared(clip_id, "an object of it is too young", is_young=True)
        found = reader.read(objects)
        for one in found:
            if isinstance(one, Unreadable):
                return Spared(clip_id, f"{one.key}: {one.message}", is_young=False)
        clips = [one for one in found if isinstance(one, OutputClip)]
        return Unnamed(objects, clips[0] if clips else None)

    listed = list_clips(store, kinds=(*LISTED, *BESIDE))
    yield from filter(None, in_parallel(judge, listed, NUM_THREADS))


def remove_clips(
    store: Store,
    unnamed: Iterable[Unnamed],
    written_before: float,
    before_each: Callable[[], None],
) -> Iterator[int | None]:
    """Remove clips; yield the bytes of each, or None for one that was committed again meanwhile.

    Args:
        written_before: as for `sort_clips`.
        before_each: called before each clip; it raises to end the removal.
    """

    def remove(one: Unnamed) -> int | None:
        before_each()
        return one.num_bytes if remove_clip(store, one.objects, written_before) else None

    return in_parallel(remove, unnamed, NUM_THREADS)


def remove_clip(store: Store, clip: ClipObjects, written_before: float) -> bool:
    """Remove the objects of one clip. Return False if it was committed again meanwhile."""
    for listed in sorted(clip.objects, key=_place):
        if listed.kind in OF_MP4S and not _is_garbage(store, listed, written_before):
            return False
        store.delete(listed.stored.key)
    return True


def _place(listed: ListedObject) -> int:
    assert listed.kind != "foreign", "a clip has no foreign objects"
    return ORDER.index(listed.kind)


def _is_garbage(store: Store, listed: ListedObject, written_before: float) -> bool:
    """Look at an MP4 or a poster once more, now that no record names it."""
    parsed = parse_key(listed.stored.key)
    assert parsed is not None  # as it was when it was listed
    return is_still_garbage(store, Garbage(parsed, listed.stored), written_before)
