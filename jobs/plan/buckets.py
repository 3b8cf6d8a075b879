"""The states of clips, and the buckets of clips that take equally long.

A run takes the buckets in this order: larger groups of devices first, since devices that a group
leaves can serve single workers, while single workers rarely leave a whole group; then the model
with the longest clip; and within a model the longest clips. So a model's shapes come together, and
the clips that end a run are short. The longest are those with most predicted time on a device.
"""

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from jobs.manifest.resolving import MAX_KINDS
from jobs.manifest.rows import Catalog
from jobs.manifest.walk.identifying import RowKind
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.prediction import H100, NVLINK_H100, Work, predict
from pipelines.cost.published import WAN_1_3B
from pipelines.errors import ModelFolderError
from pipelines.lora_choice import LoraChoice
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape

ClipState = Literal["done", "damaged", "quarantined", "broken", "pending"]
MAX_LORA_CHOICES = 64  # each model that fuses them; clips of further choices come together


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

    @property
    def kind(self) -> tuple[str, ParallelConfig]:
        """The model and the devices, which one worker serves."""
        return self.model, self.parallel

    @property
    def content(self) -> tuple[str, VideoShape, int]:
        """The values that decide pixels: clips of one id agree in them."""
        return self.model, self.shape, self.num_inference_steps


@dataclass(frozen=True)
class Part:
    """The clips of a bucket that need the same LoRAs in the weights.

    Args:
        number: number of the part in the plan, from 1.
        lora_choice: number of the choice among those of its model, in the manifest's order; always
            0 if a switch is quick, since the LoRAs are not fused.
    """

    number: int
    bucket: PlanBucket
    lora_choice: int
    num_pending: int


class PartOfRows:
    """The part of the clip of each row, as four bytes a row; 0 for a row that no walk needs."""

    def __init__(self) -> None:
        self._parts = array("I")

    def add(self, index: int, part: int) -> None:
        """Note the part of the row `index`, which lies behind those noted before."""
        if num_between := index - len(self._parts):
            self._parts.extend(bytes(num_between))
        self._parts.append(part)

    def marks(self, wanted: Collection[int]) -> bytes:
        """Return a byte for each row: 1 if its part is wanted."""
        return bytes(map(wanted.__contains__, self._parts))


class _BucketKey(NamedTuple):
    """The values that the clips of one bucket share."""

    model: str
    shape: VideoShape
    num_inference_steps: int
    parallel: ParallelConfig


@dataclass
class _Counts:
    """The counts of one bucket while a plan is made.

    Args:
        method: guidance method of its first clip.
        parts: number of the part of each choice of LoRAs.
    """

    method: GuidanceMethod
    num_clips: int = 0
    num_done: int = 0
    num_pending: int = 0
    parts: dict[int, int] = field(default_factory=dict[int, int])

    def add(self, state: ClipState) -> None:
        self.num_clips += 1
        self.num_done += state == "done"
        self.num_pending += state == "pending"


class BucketCounts:
    """The buckets while a plan is made."""

    def __init__(self) -> None:
        self._counts: dict[_BucketKey, _Counts] = {}
        self._num_pending = [0]  # by the number of the part
        self._choices: defaultdict[str, dict[tuple[LoraChoice, ...] | None, int]] = defaultdict(
            dict
        )
        self._of_kinds: dict[RowKind, tuple[_Counts, int]] = {}  # each with the part of its clips

    def __bool__(self) -> bool:
        return bool(self._counts)

    def add(self, kind: RowKind, state: ClipState) -> int:
        """Count a clip of this kind, and return the number of its part."""
        counts, part = self._of_kind(kind)
        counts.add(state)
        self._num_pending[part] += state == "pending"
        return part

    def part_of(self, kind: RowKind) -> int:
        """Return the number of the part of a clip of this kind without counting it."""
        return self._of_kind(kind)[1]

    def sorted(self, catalog: Catalog) -> tuple[PlanBucket, ...]:
        """Return the buckets in the order in which a run takes them."""
        found = [_bucket(key, self._counts[key]) for key in sorted(self._counts, key=_order)]
        return in_order(found, catalog)

    def parts(self, buckets: Collection[PlanBucket]) -> Iterator[Part]:
        """Yield the parts of the buckets of `sorted`, in their order."""
        for bucket in buckets:
            counts = self._counts[_key_of_bucket(bucket)]
            for choice, number in sorted(counts.parts.items()):
                yield Part(number, bucket, choice, self._num_pending[number])

    def _of_kind(self, kind: RowKind) -> tuple[_Counts, int]:
        found = self._of_kinds.get(kind)
        if found is None:
            if len(self._of_kinds) >= MAX_KINDS:
                self._of_kinds.clear()
            counts = self._counts_of(kind)
            found = self._of_kinds[kind] = counts, self._part_in(counts, kind)
        return found

    def _counts_of(self, kind: RowKind) -> _Counts:
        key = _key_of(kind)
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = _Counts(kind.request.method)
        return counts

    def _part_in(self, counts: _Counts, kind: RowKind) -> int:
        choice = self._choice_of(kind) if kind.model.fuse_loras else 0
        if choice not in counts.parts:
            counts.parts[choice] = len(self._num_pending)
            self._num_pending.append(0)
        return counts.parts[choice]

    def _choice_of(self, kind: RowKind) -> int:
        choices, loras = self._choices[kind.model.name], kind.request.loras
        if loras not in choices and len(choices) < MAX_LORA_CHOICES:
            choices[loras] = len(choices)
        return choices.get(loras, MAX_LORA_CHOICES)


def in_order(buckets: Collection[PlanBucket], catalog: Catalog) -> tuple[PlanBucket, ...]:
    """Return buckets in the order in which a run takes them; equal ones keep their order."""
    seconds = {bucket: predicted_s(bucket, catalog) for bucket in buckets}
    longest: defaultdict[tuple[str, ParallelConfig], float] = defaultdict(float)
    for bucket, clip_s in seconds.items():
        if bucket.num_pending:
            longest[bucket.kind] = max(longest[bucket.kind], clip_s)
    kinds = sorted(
        dict.fromkeys(bucket.kind for bucket in buckets),
        key=lambda kind: (-kind[1].degree, kind[1].across_hosts, -longest[kind]),
    )
    place = {kind: number for number, kind in enumerate(kinds)}
    return tuple(sorted(buckets, key=lambda bucket: (place[bucket.kind], -seconds[bucket])))


def predicted_s(bucket: PlanBucket, catalog: Catalog) -> float:
    """Return the predicted seconds of a clip on an H100, to compare clips, whatever renders them.

    A model whose operations cannot be counted is taken for one of the size of Wan 2.1 1.3B.
    """
    geometry: ModelGeometry = WAN_1_3B
    with suppress(ModelFolderError):
        geometry = catalog.get(bucket.model).geometry
    work = Work(geometry, bucket.shape, bucket.num_inference_steps, bucket.method)
    return predict(work, bucket.parallel, H100, NVLINK_H100).total_s


def _key_of(kind: RowKind) -> _BucketKey:
    shape, steps = kind.request.shape, kind.request.sampling.num_inference_steps
    return _BucketKey(kind.model.name, shape, steps, kind.parallel)


def _key_of_bucket(bucket: PlanBucket) -> _BucketKey:
    return _BucketKey(bucket.model, bucket.shape, bucket.num_inference_steps, bucket.parallel)


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
