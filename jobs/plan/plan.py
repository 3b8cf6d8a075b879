"""What a run would do: every row checked, every clip counted, before anything is rendered. Loads without torch."""

from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.manifest.manifest import Manifest
from jobs.types import ClipSpec
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import GuidanceMethod, VideoShape


class _Kind(NamedTuple):
    model: str
    shape: VideoShape
    num_inference_steps: int
    parallel: ParallelConfig


@dataclass(frozen=True)
class PlanGroup:
    """The clips of one model, shape, number of steps and group of devices: those that take equally long.

    Args:
        method: of the first of them; which clips are of one group it does not decide.
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
    """A manifest against what its store already holds.

    `num_clips` is `num_done + num_quarantined + num_pending`, `num_rows` is `num_clips + num_repeats`. A clip that is
    both committed and quarantined is done: its record says so.
    """

    name: str
    num_rows: int
    num_repeats: int
    num_clips: int
    num_done: int
    num_quarantined: int
    num_pending: int
    groups: tuple[PlanGroup, ...]  # by model, shape, steps, devices
    _manifest: Manifest = field(repr=False)
    _committed: Container[str] = field(repr=False)
    _quarantined: Container[str] = field(repr=False)

    def pending(self) -> Iterator[ClipSpec]:
        """Streams the clips that are to be rendered, in the manifest's order, by walking it once more.

        Raises:
            ManifestError: the manifest's file changed since the plan was made.
        """
        for spec in self._manifest.specs():
            if spec.clip_id not in self._committed and spec.clip_id not in self._quarantined:
                yield spec


def make_plan(manifest: Manifest, committed: Container[str], quarantined: Container[str]) -> Plan:
    """Walks all rows of `manifest` once, so that a wrong row is found before anything runs.

    Args:
        manifest: what is to be rendered.
        committed: ids of clips that have a record in the store.
        quarantined: ids of clips that were given up.

    Raises:
        ManifestError: a row is wrong.
    """
    num_rows = num_repeats = num_done = num_quarantined = 0
    clips: dict[_Kind, list[int]] = {}  # [clips, pending]
    methods: dict[_Kind, GuidanceMethod] = {}
    for row in manifest.rows():
        num_rows += 1
        if not isinstance(row, ClipSpec):
            num_repeats += 1
            continue
        kind = _Kind(
            row.model.name,
            row.request.shape,
            row.request.sampling.num_inference_steps,
            row.parallel,
        )
        counts = clips.setdefault(kind, [0, 0])
        counts[0] += 1
        methods.setdefault(kind, row.request.method)
        if row.clip_id in committed:
            num_done += 1
        elif row.clip_id in quarantined:
            num_quarantined += 1
        else:
            counts[1] += 1
    groups = tuple(
        PlanGroup(
            kind.model,
            kind.shape,
            kind.num_inference_steps,
            *clips[kind],
            parallel=kind.parallel,
            method=methods[kind],
        )
        for kind in sorted(clips, key=_order)
    )
    num_clips = num_rows - num_repeats
    return Plan(
        name=manifest.name,
        num_rows=num_rows,
        num_repeats=num_repeats,
        num_clips=num_clips,
        num_done=num_done,
        num_quarantined=num_quarantined,
        num_pending=num_clips - num_done - num_quarantined,
        groups=groups,
        _manifest=manifest,
        _committed=committed,
        _quarantined=quarantined,
    )


def _order(kind: _Kind) -> tuple[object, ...]:
    shape, parallel = kind.shape, kind.parallel
    size = (shape.num_frames, shape.height, shape.width)
    devices = (parallel.degree, parallel.ulysses, parallel.across_hosts)
    return kind.model, size, kind.num_inference_steps, devices
