"""A plan: every row checked and every clip counted, before a run begins. Loads without torch."""

from collections import Counter
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, field

from jobs.clip_id import stand_in_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import Manifest
from jobs.manifest.walk.identifying import BATCH_CLIPS, RowClip
from jobs.manifest.walk.selection import ManifestRow, Selection
from jobs.plan.broken import BrokenModel, BrokenModels
from jobs.plan.buckets import BucketCounts, ClipState, Part, PartOfRows, PlanBucket
from jobs.types import BrokenClip, ClipSpec


@dataclass(frozen=True, eq=False)
class StoreStates:
    """The clips that an output holds already, by their ids.

    Args:
        committed: clips with a record.
        quarantined: clips in quarantine.
        damaged: committed clips without an MP4.
    """

    committed: Container[str]
    quarantined: Container[str]
    damaged: Container[str]

    def state_of(self, clip: RowClip | BrokenClip) -> ClipState:
        clip_id = clip.clip_id
        if clip_id in self.committed:
            return "damaged" if clip_id in self.damaged else "done"
        if clip_id in self.quarantined:
            return "quarantined"
        return "broken" if isinstance(clip, BrokenClip) else "pending"


@dataclass(frozen=True, eq=False)
class Plan:
    """The clips of a manifest, compared with the store.

    `num_clips` is `num_done + num_damaged + num_quarantined + num_pending + num_broken`, and
    `num_rows` is `num_clips + num_repeats`. A clip that is both committed and quarantined is done,
    since it has a record.

    Args:
        num_random: rows that ask for a random seed.
        num_damaged: clips that have a record, but no MP4.
        num_other_names: rows with a name whose clip may have a record under another name.
        num_cut: clips with a text beyond the limit of the model.
        buckets: clips that take equally long, in the order in which a run takes them.
        parts: parts of the buckets, in their order.
        broken: models that are missing or broken here, in the manifest's order. A run quarantines
            their clips under stand-in ids and renders the rest.
        mended: stand-in ids in quarantine of clips whose model is whole by now.
    """

    name: str
    num_rows: int
    num_repeats: int
    num_random: int
    num_clips: int
    num_done: int
    num_damaged: int
    num_quarantined: int
    num_pending: int
    num_other_names: int
    num_cut: int
    buckets: tuple[PlanBucket, ...]
    parts: tuple[Part, ...]
    broken: tuple[BrokenModel, ...]
    mended: frozenset[str]
    _manifest: Manifest = field(repr=False)
    _counts: BucketCounts = field(repr=False)
    _part_of_rows: PartOfRows | None = field(repr=False)
    _store: StoreStates = field(repr=False)

    @property
    def num_broken(self) -> int:
        """Return the number of clips that a run is to quarantine, since their model is broken."""
        return sum(model.num_clips for model in self.broken)

    @property
    def selection(self) -> Selection:
        """The part of the manifest that this plan is about."""
        return self._manifest.selection

    def pending(self) -> Iterator[ClipSpec]:
        """Stream the clips to be rendered, in the manifest's order, from a further walk over it.

        Raises:
            ManifestError: the manifest's file was rewritten since the plan was made, or, at the
                end, it has changed in another way.
        """
        return (clip.spec() for clip in self._left(self._rows()) if isinstance(clip, RowClip))

    def pending_in(
        self, parts: Collection[Part], *, are_held: bool
    ) -> Iterator[tuple[Part, ClipSpec]]:
        """Stream the pending clips of some parts, each with its part, in the manifest's order.

        Rows of other parts are not even parsed.

        Args:
            are_held: True if the caller takes all clips at once, so that many are read together.

        Raises:
            ManifestError: as `pending`.
        """
        wanted = {part.number: part for part in parts}
        num_ahead = BATCH_CLIPS if are_held else 1
        if self._part_of_rows is None:
            rows = self._manifest.rows(num_ahead)
        else:
            marks = self._part_of_rows.marks(self._with_equal_rows(parts))
            rows = self._manifest.marked_rows(marks, num_ahead)
        for clip in self._left(rows):
            if isinstance(clip, RowClip):
                part = wanted.get(self._counts.part_of(clip.kind))
                if part is not None:
                    yield part, clip.spec()

    def check_unchanged(self) -> None:
        """Raise ManifestError if the manifest's file was rewritten since the plan was made."""
        self._manifest.check_unchanged()

    def _with_equal_rows(self, parts: Collection[Part]) -> set[int]:
        """Return the numbers of parts; if seeds are drawn, also of those for other devices.

        Rows without a name that are equal but for the devices are counted together.
        """
        contents = {part.bucket.content for part in parts} if self.num_random else set()
        others = (part.number for part in self.parts if part.bucket.content in contents)
        return {part.number for part in parts}.union(others)

    def broken_clips(self) -> Iterator[BrokenClip]:
        """Stream the clips of broken models that are not quarantined yet, as `pending` does."""
        return (clip for clip in self._left(self._rows()) if isinstance(clip, BrokenClip))

    def rows(self) -> Iterator[tuple[ManifestRow, ClipState]]:
        """Stream every row and the state of its clip, from a further walk over the manifest."""
        for row in self._manifest.rows():
            yield row, self._store.state_of(row.clip)

    def other_names(self) -> Iterator[ClipSpec]:
        """Stream the clip of each row whose clip may be known by another name.

        A clip that was pending gets the name of its first row.
        """
        for row, state in self.rows():
            if _may_be_another_name(row, state) and isinstance(row.clip, RowClip):
                yield row.clip.spec()

    def _rows(self) -> Iterator[ManifestRow]:
        return self._manifest.rows(num_ahead=1)  # a run asks for the next one much later

    def _left(self, rows: Iterator[ManifestRow]) -> Iterator[RowClip | BrokenClip]:
        try:
            for row in rows:
                if not row.is_repeat and self._store.state_of(row.clip) in ("pending", "broken"):
                    self._manifest.check_unchanged()
                    yield row.clip
        except ManifestError:  # a row of the new content may be wrong: that is not the reason
            self._manifest.check_unchanged()
            raise


def make_plan(
    manifest: Manifest,
    committed: Container[str],
    quarantined: Container[str],
    damaged: Container[str] = (),
) -> Plan:
    """Walk all rows of `manifest` once, so that a wrong row is found before anything runs.

    Args:
        manifest: clips of the run.
        committed: ids of the clips that have a record in the store.
        quarantined: ids of the clips in quarantine.
        damaged: ids of committed clips that have no MP4; they are not rendered.

    Raises:
        ManifestError: a row is wrong, or no model of the manifest can be used.
    """
    found = _Found(manifest, StoreStates(committed, quarantined, damaged))
    for row in manifest.rows():
        found.add(row)
    return found.plan()


class _Found:
    """The rows and clips that a walk has found so far."""

    def __init__(self, manifest: Manifest, store: StoreStates) -> None:
        self._manifest = manifest
        self._store = store
        self._broken, self._mended = BrokenModels(store.quarantined), set[str]()
        self._num_rows = self._num_repeats = self._num_random = 0
        self._num_cut = self._num_other_names = 0
        self._num_clips = Counter[ClipState]()
        self._buckets = BucketCounts()
        # `--only` counts rows that it leaves out, so they have no numbers of their own here
        self._part_of_rows = None if manifest.selection.only else PartOfRows()

    def add(self, row: ManifestRow) -> None:
        clip = row.clip
        state = self._store.state_of(clip)
        self._num_rows += 1
        self._num_random += row.is_random
        self._num_other_names += _may_be_another_name(row, state)
        if isinstance(clip, BrokenClip):
            self._num_clips[state] += 1
            self._broken.add(clip)
            return
        quarantined = self._store.quarantined
        if quarantined and (stand_in := stand_in_id(clip.name)) in quarantined:
            self._mended.add(stand_in)
        if row.is_repeat:
            self._num_repeats += 1
            part = self._buckets.part_of(clip.kind)
        else:
            self._num_clips[state] += 1
            self._num_cut += clip.is_text_cut
            part = self._buckets.add(clip.kind, state)
        if self._part_of_rows is not None:
            is_wanted = state == "pending" and not row.is_repeat
            if is_wanted or _is_counted(row):
                self._part_of_rows.add(row.number, part)

    def plan(self) -> Plan:
        """Return the plan, once all rows were added.

        Raises:
            ManifestError: no model of the manifest can be used.
        """
        if self._broken.messages and not self._buckets:
            raise ManifestError(next(iter(self._broken.messages.values())))
        in_order = self._buckets.sorted(self._manifest.catalog)
        return Plan(
            name=self._manifest.name,
            num_rows=self._num_rows,
            num_repeats=self._num_repeats,
            num_random=self._num_random,
            num_clips=self._num_clips.total(),
            num_done=self._num_clips["done"],
            num_damaged=self._num_clips["damaged"],
            num_quarantined=self._num_clips["quarantined"],
            num_pending=self._num_clips["pending"],
            num_other_names=self._num_other_names,
            num_cut=self._num_cut,
            buckets=in_order,
            parts=tuple(self._buckets.parts(in_order)),
            broken=self._broken.models(),
            mended=frozenset(self._mended),
            _manifest=self._manifest,
            _counts=self._buckets,
            _part_of_rows=self._part_of_rows,
            _store=self._store,
        )


def _is_counted(row: ManifestRow) -> bool:
    """Return True if the seed of a row depends on the number of equal rows before it."""
    return row.is_random and not row.is_named


def _may_be_another_name(row: ManifestRow, state: ClipState) -> bool:
    return row.is_named and (row.is_repeat or state in ("done", "damaged"))
