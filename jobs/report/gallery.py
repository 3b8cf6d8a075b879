"""The refresh of a gallery: read what has changed in the output, and write what that changes.

Decides what is read and written. The fingerprint of a clip's objects, from a listing, tells whether
its row still holds, so that a refresh reads new and changed clips alone. The index is written last:
a refresh that breaks off leaves the gallery as it was.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from jobs.errors import ObjectMissingError, RecordError
from jobs.overview.clips import OutputClip, Unreadable, read_clips
from jobs.records.listing import BESIDE, LISTED, ClipObjects, list_clips
from jobs.records.schema import utc_iso
from jobs.report.links import Links
from jobs.report.page_files import page_files
from jobs.report.parts import CLIPS_A_PART, Part, read_entries, read_part, write_part
from jobs.report.rows import Entry, entry_of, seen_of
from jobs.report.run_list import RunList, total_cost
from jobs.report.scripts import VERSION
from jobs.report.target import Target, named_files
from jobs.store.store import Store

MAX_TROUBLE = 100
READ_AGAIN = ""  # the fingerprint of a clip that each refresh has to read


@dataclass(frozen=True)
class Refreshed:
    """The result of a refresh.

    Args:
        counts: clips by state.
        num_read: clips that were new or had changed.
        num_trouble: objects that cannot be read.
        links_expire_at: end of the first presigned links; None without them.
    """

    counts: Counter[str]
    num_read: int
    num_written: int
    num_trouble: int
    links_expire_at: str | None


@dataclass
class Changes:
    """The clips that a refresh has read so far.

    Args:
        place: number of the part of each clip, of those not yet met in the listing.
        changed: new content of clips in parts, by part and id; None for one that is gone.
        fresh: clips that are in no part yet.
    """

    place: dict[str, int]
    changed: dict[int, dict[str, Entry | None]] = field(
        default_factory=dict[int, dict[str, Entry | None]]
    )
    fresh: list[Entry] = field(default_factory=list[Entry])
    trouble: list[Unreadable] = field(default_factory=list[Unreadable])
    num_read: int = 0


@dataclass
class Gallery:
    """The gallery of one output. It keeps what it knows of the parts between two refreshes.

    Args:
        store: the output.
        target: the place of the gallery.
        links: the links of the page to the clips.
        refresh_s: seconds between two refreshes of a run; None without a run.
        on_read: called with each clip that was read.
        clips_a_part: the most rows of a part.
    """

    store: Store
    target: Target
    links: Links
    refresh_s: float | None = None
    on_read: Callable[[str], None] = lambda _clip_id: None
    clips_a_part: int = CLIPS_A_PART
    _parts: list[Part] | None = field(default=None, init=False)
    _index: dict[str, Any] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._runs = RunList(self.store)
        self._has_page = False

    def refresh(self, *, is_running: bool = False) -> Refreshed:
        """Bring the gallery up to date.

        Raises:
            StoreError: the output or the gallery's place does not answer or refuses.
        """
        found = self.target.read_index()
        if not self._has_page or found is None:
            for name, content, content_type in page_files(self.links.base):
                self.target.write(name, content, content_type)
            self._has_page = True
        # another refresh of this gallery removes data files that its own index does not name
        if self._parts is None or named_files(found) != named_files(self._index):
            self._index = found
            self._parts = self._read_parts(found)
        try:
            refreshed = self._refresh(self._parts, is_running=is_running)
        except (ObjectMissingError, RecordError):  # another program has removed a data file
            self._parts = []
            refreshed = self._refresh(self._parts, is_running=is_running)
        return refreshed

    def _read_parts(self, index: dict[str, Any] | None) -> list[Part]:
        """Return the parts that an index names; none if one of them is gone."""
        if index is None or index.get("link_base") != self.links.base:
            return []
        with suppress(ObjectMissingError, RecordError):
            files = zip(index["parts"], index["details"], strict=True)
            return [read_part(self.target, part["file"], of["file"]) for part, of in files]
        return []

    def _refresh(self, parts: list[Part], *, is_running: bool) -> Refreshed:
        place = {clip_id: n for n, part in enumerate(parts) for clip_id in part.seen}
        changes, num_written = Changes(place), 0
        known = {clip_id: seen for part in parts for clip_id, seen in part.seen.items()}
        for found in read_clips(self.store, with_scores=True, listed=self._to_read(known, changes)):
            self._take(found, changes)
            if len(changes.fresh) == self.clips_a_part:
                parts.append(write_part(self.target, len(parts), changes.fresh, self.links.sign))
                changes.fresh = []
                num_written += 1
        for clip_id, number in changes.place.items():
            changes.changed.setdefault(number, {})[clip_id] = None
        num_written += self._write_parts(parts, changes)
        index = self._index_of(parts, changes, is_running=is_running)
        before = self._index
        self.target.write_index(index)
        self._index = index
        if num_written:
            self.target.sweep(named_files(index) | named_files(before))
        counts = sum((part.counts for part in parts), Counter[str]())
        return Refreshed(
            counts, changes.num_read, num_written, len(changes.trouble), index["links_expire_at"]
        )

    def _to_read(self, known: dict[str, str], changes: Changes) -> Iterator[ClipObjects]:
        """Yield the clips whose objects differ from those that their row was made of."""
        for clip in list_clips(self.store, kinds=(*LISTED, *BESIDE)):
            if any(clip.of_kind(kind) for kind in ("record", "quarantine", "failure")):
                if known.get(clip.clip_id) == seen_of(clip):
                    changes.place.pop(clip.clip_id, None)
                else:
                    yield clip

    def _take(self, found: OutputClip | Unreadable, changes: Changes) -> None:
        if isinstance(found, Unreadable):
            changes.trouble.append(found)
            return
        # the trouble of a clip comes before the clip itself
        has_trouble = bool(changes.trouble) and changes.trouble[-1].clip_id == found.clip_id
        number = changes.place.pop(found.clip_id, None)
        entry = entry_of(found, READ_AGAIN if has_trouble else seen_of(found.objects))
        if number is None:
            changes.fresh.append(entry)
        else:
            changes.changed.setdefault(number, {})[found.clip_id] = entry
        changes.num_read += 1
        self.on_read(found.clip_id)

    def _write_parts(self, parts: list[Part], changes: Changes) -> int:
        """Write the parts with changed clips, and put the fresh clips into parts with room."""
        num_written = 0
        for number, part in enumerate(parts):
            changed = changes.changed.get(number, {})
            room = self.clips_a_part - part.num_clips + sum(one is None for one in changed.values())
            added, changes.fresh = changes.fresh[:room], changes.fresh[room:]
            if changed or added or self._must_sign(part):
                entries = {**read_entries(self.target, part), **changed}
                kept = [entry for entry in entries.values() if entry is not None]
                parts[number] = write_part(self.target, number, [*kept, *added], self.links.sign)
                num_written += 1
        if changes.fresh:
            parts.append(write_part(self.target, len(parts), changes.fresh, self.links.sign))
            num_written += 1
        return num_written

    def _must_sign(self, part: Part) -> bool:
        """Return True if the links of a part are of another kind, or half of their time is over."""
        if self.links.valid_s is None:
            return part.links_expire_at is not None
        renewed_at = utc_iso(time.time() + self.links.valid_s / 2)
        return part.links_expire_at is None or part.links_expire_at < renewed_at

    def _index_of(
        self, parts: Sequence[Part], changes: Changes, *, is_running: bool
    ) -> dict[str, Any]:
        runs, num_runs = self._runs.runs()
        names = [run["manifest"] for run in runs if run["manifest"]]
        counts = sum((part.counts for part in parts), Counter[str]())
        ends = [part.links_expire_at for part in parts if part.links_expire_at is not None]
        return {
            "version": VERSION,
            "title": names[-1] if names else self.store.uri.rpartition("/")[2],
            "uri": self.store.uri,
            "generated_at": utc_iso(time.time()),
            "is_running": is_running,
            "refresh_s": self.refresh_s if is_running else None,
            "links": self.links.written,
            "link_base": self.links.base,
            "links_expire_at": min(ends, default=None),
            "parts": [{"file": part.file, "num_clips": part.num_clips} for part in parts],
            "details": [{"file": part.details, "num_clips": part.num_clips} for part in parts],
            "runs": runs,
            "num_runs": num_runs,
            "cost": total_cost(runs),
            "counts": dict(counts),
            "trouble": [
                {"clip_id": one.clip_id, "key": one.key, "message": one.message}
                for one in changes.trouble[:MAX_TROUBLE]
            ],
            "num_trouble": len(changes.trouble),
        }
