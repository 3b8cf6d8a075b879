"""A plan: every row checked and every clip counted, before a run begins. Loads without torch."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.errors import ManifestError
from jobs.manifest.manifest import Manifest
from jobs.types import ClipSpec
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
    num_pending: int = 0


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
    method: GuidanceMethod = field(default="none", compare=False)


@dataclass(frozen=True, eq=False)
class Plan:
    """The clips of a manifest, compared with the store.

    `num_clips` is `num_done + num_damaged + num_quarantined + num_pending`, and `num_rows` is
    `num_clips + num_repeats`. A clip that is both committed and quarantined is done, since it has a
    record.

    Args:
        num_damaged: clips that have a record, but no MP4.
        buckets: clips that take equally long, sorted by model, shape, steps and devices.
    """

    name: str
    num_rows: int
    num_repeats: int
    num_clips: int
    num_done: int
    num_damaged: int
    num_quarantined: int
    num_pending: int
    buckets: tuple[PlanBucket, ...]
    _manifest: Manifest = field(repr=False)
    _committed: Container[str] = field(repr=False)
    _quarantined: Container[str] = field(repr=False)

    def pending(self) -> Iterator[ClipSpec]:
        """Stream the clips to be rendered, in the manifest's order, from a further walk over it.

        Raises:
            ManifestError: the manifest's file was rewritten since the plan was made, or, at the
                end, it has changed in another way.
        """
        try:
            for spec in self._manifest.specs():
                if spec.clip_id not in self._committed and spec.clip_id not in self._quarantined:
                    self._manifest.check_unchanged()
                    yield spec
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
        ManifestError: a row is wrong.
    """
    num_rows = num_repeats = num_done = num_damaged = num_quarantined = 0
    counts_by_key: dict[_BucketKey, _Counts] = {}
    for row in manifest.rows():
        num_rows += 1
        if row.is_repeat:
            num_repeats += 1
            continue
        spec, request = row.spec, row.spec.request
        steps = request.sampling.num_inference_steps
        key = _BucketKey(spec.model.name, request.shape, steps, spec.parallel)
        counts = counts_by_key.setdefault(key, _Counts(request.method))
        counts.num_clips += 1
        if spec.clip_id in committed:
            if spec.clip_id in damaged:
                num_damaged += 1
            else:
                num_done += 1
        elif spec.clip_id in quarantined:
            num_quarantined += 1
        else:
            counts.num_pending += 1
    num_clips = num_rows - num_repeats
    return Plan(
        name=manifest.name,
        num_rows=num_rows,
        num_repeats=num_repeats,
        num_clips=num_clips,
        num_done=num_done,
        num_damaged=num_damaged,
        num_quarantined=num_quarantined,
        num_pending=num_clips - num_done - num_damaged - num_quarantined,
        buckets=tuple(
            _bucket(key, counts_by_key[key]) for key in sorted(counts_by_key, key=_order)
        ),
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
        counts.method,
    )


def _order(key: _BucketKey) -> tuple[object, ...]:
    shape, parallel = key.shape, key.parallel
    size = (shape.num_frames, shape.height, shape.width)
    devices = (parallel.degree, parallel.ulysses, parallel.across_hosts)
    return key.model, size, key.num_inference_steps, devices
