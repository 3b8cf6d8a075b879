"""A plan: every row checked and every clip counted, before a run begins. Loads without torch."""

from collections import Counter
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.clip_id import stand_in_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import Manifest
from jobs.manifest.walk.selection import Selection
from jobs.types import BrokenClip, ClipSpec
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape


class _BucketKey(NamedTuple):
    """The values that the clips of one bucket share."""

    model: str
    shape: VideoShape
    num_inference_steps: int
    parallel: ParallelConfig


@dataclass
class _Counts:
    """The counts of one bucket while a plan is made. `method` is that of its first clip."""

    method: GuidanceMethod
    num_clips: int = 0
    num_done: int = 0
    num_pending: int = 0


class _Broken:
    """The models that are found broken while a plan is made, with their clips."""

    def __init__(self, quarantined: Container[str]) -> None:
        self.messages: dict[str, str] = {}
        self._quarantined = quarantined
        self._num_clips: Counter[str] = Counter()

    def add(self, clip: BrokenClip) -> bool:
        """Take in a clip; return True if it is quarantined already."""
        self.messages.setdefault(clip.model, clip.message)
        is_quarantined = clip.clip_id in self._quarantined
        self._num_clips[clip.model] += not is_quarantined
        return is_quarantined

    def models(self) -> "tuple[BrokenModel, ...]":
        return tuple(
            BrokenModel(name, message, self._num_clips[name])
            for name, message in self.messages.items()
        )


@dataclass(frozen=True)
class BrokenModel:
    """A model that is missing or broken here.

    Args:
        message: fault of the model, and the first line of the manifest that asks for it.
        num_clips: clips of the model that are not quarantined yet.
    """

    name: str
    message: str
    num_clips: int


@dataclass(frozen=True)
class PlanBucket:
    """Clips that take equally long: one model, shape, number of steps and group of devices.

    Args:
        method: guidance method of the first of these clips; it does not divide clips into buckets.
    """

    model: str
    shape: VideoShape
    num_inference_steps: int
    num_clips: int
    num_pending: int
    parallel: ParallelConfig = ONE_DEVICE
    num_done: int = 0
    method: GuidanceMethod = field(default="none", compare=False)


@dataclass(frozen=True, eq=False)
class Plan:
    """The clips of a manifest, compared with the store.

    `num_clips` is `num_done + num_damaged + num_quarantined + num_pending + num_broken`, and
    `num_rows` is `num_clips + num_repeats`. A clip that is both committed and quarantined is done,
    since it has a record.

    Args:
        num_random: rows that ask for a random seed.
        num_damaged: clips that have a record, but no MP4.
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
    buckets: tuple[PlanBucket, ...]
    broken: tuple[BrokenModel, ...]
    mended: frozenset[str]
    _manifest: Manifest = field(repr=False)
    _committed: Container[str] = field(repr=False)
    _quarantined: Container[str] = field(repr=False)

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

    def _left(self) -> Iterator[ClipSpec | BrokenClip]:
        try:
            for row in self._manifest.rows():
                clip = row.spec
                if row.is_repeat:
                    continue
                if clip.clip_id not in self._committed and clip.clip_id not in self._quarantined:
                    self._manifest.check_unchanged()
                    yield clip
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
    broken, mended = _Broken(quarantined), set[str]()
    num_rows = num_repeats = num_random = num_done = num_damaged = num_quarantined = 0
    counts_by_key: dict[_BucketKey, _Counts] = {}
    for row in manifest.rows():
        num_rows += 1
        num_random += row.is_random
        if isinstance(row.spec, BrokenClip):
            num_quarantined += broken.add(row.spec)
            continue
        if row.is_repeat:
            num_repeats += 1
            continue
        spec, request = row.spec, row.spec.request
        if quarantined and (stand_in := stand_in_id(spec.name)) in quarantined:
            mended.add(stand_in)
        steps = request.sampling.num_inference_steps
        key = _BucketKey(spec.model.name, request.shape, steps, spec.parallel)
        counts = counts_by_key.setdefault(key, _Counts(request.method))
        counts.num_clips += 1
        if spec.clip_id in committed:
            if spec.clip_id in damaged:
                num_damaged += 1
            else:
                num_done += 1
                counts.num_done += 1
        elif spec.clip_id in quarantined:
            num_quarantined += 1
        else:
            counts.num_pending += 1
    if broken.messages and not counts_by_key:
        raise ManifestError(next(iter(broken.messages.values())))
    num_clips, models = num_rows - num_repeats, broken.models()
    num_broken = sum(model.num_clips for model in models)
    return Plan(
        name=manifest.name,
        num_rows=num_rows,
        num_repeats=num_repeats,
        num_random=num_random,
        num_clips=num_clips,
        num_done=num_done,
        num_damaged=num_damaged,
        num_quarantined=num_quarantined,
        num_pending=num_clips - num_done - num_damaged - num_quarantined - num_broken,
        buckets=tuple(
            _bucket(key, counts_by_key[key]) for key in sorted(counts_by_key, key=_order)
        ),
        broken=models,
        mended=frozenset(mended),
        _manifest=manifest,
        _committed=committed,
        _quarantined=quarantined,
    )


def _bucket(key: _BucketKey, counts: _Counts) -> PlanBucket:
    return PlanBucket(
        key.model,
        key.shape,
        key.num_inference_steps,
        counts.num_clips,
        counts.num_pending,
        key.parallel,
        counts.num_done,
        counts.method,
    )


def _order(key: _BucketKey) -> tuple[object, ...]:
    shape, parallel = key.shape, key.parallel
    size = (shape.num_frames, shape.height, shape.width)
    devices = (parallel.degree, parallel.ulysses, parallel.across_hosts)
    return key.model, size, key.num_inference_steps, devices
