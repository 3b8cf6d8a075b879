"""The states of clips, and the buckets of clips that take equally long."""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jobs.types import ClipSpec
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape

ClipState = Literal["done", "damaged", "quarantined", "broken", "pending"]


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

    def add(self, state: ClipState) -> None:
        self.num_clips += 1
        self.num_done += state == "done"
        self.num_pending += state == "pending"


class BucketCounts:
    """The buckets while a plan is made."""

    def __init__(self) -> None:
        self._counts: dict[_BucketKey, _Counts] = {}

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, spec: ClipSpec, state: ClipState) -> None:
        self._counts.setdefault(_key_of(spec), _Counts(spec.request.method)).add(state)

    def sorted(self) -> tuple[PlanBucket, ...]:
        """Return the buckets, sorted by model, shape, steps and devices."""
        return tuple(_bucket(key, self._counts[key]) for key in sorted(self._counts, key=_order))


def _key_of(spec: ClipSpec) -> _BucketKey:
    shape, steps = spec.request.shape, spec.request.sampling.num_inference_steps
    return _BucketKey(spec.model.name, shape, steps, spec.parallel)


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
