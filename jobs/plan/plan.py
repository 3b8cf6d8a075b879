"""A plan: every row checked and every clip counted, before a run begins. Loads without torch."""

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field

from jobs.clip_id import stand_in_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import Manifest
from jobs.manifest.walk.selection import ManifestRow, Selection
from jobs.plan.broken import BrokenModel, BrokenModels
from jobs.plan.buckets import BucketCounts, ClipState, PlanBucket
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
        buckets: clips that take equally long, sorted by model, shape, steps and devices.
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
    broken: tuple[BrokenModel, ...]
    mended: frozenset[str]
    _manifest: Manifest = field(repr=False)
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
        return (clip for clip in self._left() if isinstance(clip, ClipSpec))

    def broken_clips(self) -> Iterator[BrokenClip]:
        """Stream the clips of broken models that are not quarantined yet, as `pending` does."""
        return (clip for clip in self._left() if isinstance(clip, BrokenClip))

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

    def _state(self, clip: ClipSpec | BrokenClip) -> ClipState:
        return _state_of(clip, self._committed, self._quarantined, self._damaged)

    def _left(self) -> Iterator[ClipSpec | BrokenClip]:
        try:
            for row in self._manifest.rows(num_ahead=1):  # a run asks for the next one much later
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
            buckets.add(spec, state)
            num_clips[state] += 1
            num_cut += spec.is_text_cut
    if broken.messages and not buckets:
        raise ManifestError(next(iter(broken.messages.values())))
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
        buckets=buckets.sorted(),
        broken=broken.models(),
        num_cut=num_cut,
        mended=frozenset(mended),
        _manifest=manifest,
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


def _may_be_another_name(row: ManifestRow, state: ClipState) -> bool:
    return row.is_named and (row.is_repeat or state in ("done", "damaged"))
