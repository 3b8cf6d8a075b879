"""A plan: every row checked and every clip counted, before a run begins. Loads without torch."""

from collections import Counter
from collections.abc import Collection, Container, Iterator
from dataclasses import dataclass, field

from jobs.clip_id import stand_in_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import Manifest
from jobs.manifest.walk.identifying import BATCH_CLIPS
from jobs.manifest.walk.selection import ManifestRow, Selection
from jobs.plan.broken import BrokenModel, BrokenModels
from jobs.plan.buckets import BucketCounts, ClipState, Part, PartOfRows, PlanBucket
from jobs.types import BrokenClip, ClipSpec


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
    _committed: Container[str] = field(repr=False)
    _quarantined: Container[str] = field(repr=False)
    _damaged: Container[str] = field(repr=False)

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
        return (clip for clip in self._left(self._rows()) if isinstance(clip, ClipSpec))

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
            if isinstance(clip, ClipSpec):
                part = wanted.get(self._counts.part_of(clip))
                if part is not None:
                    yield part, clip

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
            yield row, self._state(row.spec)

    def other_names(self) -> Iterator[ClipSpec]:
        """Stream the clip of each row whose clip may be known by another name.

        A clip that was pending gets the name of its first row.
        """
        for row, state in self.rows():
            if _may_be_another_name(row, state) and isinstance(row.spec, ClipSpec):
                yield row.spec

    def _rows(self) -> Iterator[ManifestRow]:
        return self._manifest.rows(num_ahead=1)  # a run asks for the next one much later

    def _state(self, clip: ClipSpec | BrokenClip) -> ClipState:
        return _state_of(clip, self._committed, self._quarantined, self._damaged)

    def _left(self, rows: Iterator[ManifestRow]) -> Iterator[ClipSpec | BrokenClip]:
        try:
            for row in rows:
                if not row.is_repeat and self._state(row.spec) in ("pending", "broken"):
                    self._manifest.check_unchanged()
                    yield row.spec
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
    broken, mended = BrokenModels(quarantined), set[str]()
    num_rows = num_repeats = num_random = num_cut = num_other_names = 0
    num_clips = Counter[ClipState]()
    buckets = BucketCounts()
    # `--only` counts rows that it leaves out, so they have no numbers of their own here
    part_of_rows = None if manifest.selection.only else PartOfRows()
    for row in manifest.rows():
        num_rows += 1
        num_random += row.is_random
        state = _state_of(row.spec, committed, quarantined, damaged)
        num_other_names += _may_be_another_name(row, state)
        if isinstance(row.spec, BrokenClip):
            num_clips[state] += 1
            broken.add(row.spec)
            continue
        spec = row.spec
        if quarantined and (stand_in := stand_in_id(spec.name)) in quarantined:
            mended.add(stand_in)
        num_repeats += row.is_repeat
        if not row.is_repeat:
            part = buckets.add(spec, state)
            num_clips[state] += 1
            num_cut += spec.is_text_cut
            if part_of_rows and (state == "pending" or _is_counted(row)):
                part_of_rows.add(row.index, part)
        elif part_of_rows and _is_counted(row):
            part_of_rows.add(row.index, buckets.part_of(spec))
    if broken.messages and not buckets:
        raise ManifestError(next(iter(broken.messages.values())))
    in_order = buckets.sorted(manifest.catalog)
    return Plan(
        name=manifest.name,
        num_rows=num_rows,
        num_repeats=num_repeats,
        num_random=num_random,
        num_clips=num_clips.total(),
        num_done=num_clips["done"],
        num_damaged=num_clips["damaged"],
        num_quarantined=num_clips["quarantined"],
        num_pending=num_clips["pending"],
        num_other_names=num_other_names,
        buckets=in_order,
        parts=tuple(buckets.parts(in_order)),
        broken=broken.models(),
        num_cut=num_cut,
        mended=frozenset(mended),
        _manifest=manifest,
        _counts=buckets,
        _part_of_rows=part_of_rows,
        _committed=committed,
        _quarantined=quarantined,
        _damaged=damaged,
    )


def _state_of(
    clip: ClipSpec | BrokenClip,
    committed: Container[str],
    quarantined: Container[str],
    damaged: Container[str],
) -> ClipState:
    if clip.clip_id in committed:
        return "damaged" if clip.clip_id in damaged else "done"
    if clip.clip_id in quarantined:
        return "quarantined"
    return "broken" if isinstance(clip, BrokenClip) else "pending"


def _is_counted(row: ManifestRow) -> bool:
    """Return True if the seed of a row depends on the number of equal rows before it."""
    return row.is_random and not row.is_named


def _may_be_another_name(row: ManifestRow, state: ClipState) -> bool:
    return row.is_named and (row.is_repeat or state in ("done", "damaged"))
