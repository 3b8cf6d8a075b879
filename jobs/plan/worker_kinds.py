"""The kinds of worker that a plan needs, the resources and the number of each. Loads without torch.

Kinds have the cluster one after the other, but for the end of each. So counts use all resources of
the machines, not the free ones. `demand` says how many workers a run wants of a kind.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from jobs.errors import PlacementError
from jobs.manifest.rows import Catalog
from jobs.plan.buckets import Part, PlanBucket
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import Machines, RankResources, check_group_fits
from jobs.plan.plan import Plan
from jobs.settings.run_config import WorkerConfig
from jobs.types import ClipSpec
from pipelines.parallel_config import ParallelConfig

MAX_HELD_CLIPS = 4096  # so many of small parts are read in one walk, and held


@dataclass(frozen=True)
class WorkerKind:
    """A model, and the devices of one worker that share a clip."""

    model: str
    parallel: ParallelConfig

    def has(self, bucket: PlanBucket) -> bool:
        """Return True if its workers render the clips of a bucket."""
        return bucket.kind == (self.model, self.parallel)


def pending_kinds(plan: Plan) -> dict[WorkerKind, int]:
    """Return the number of pending clips of each kind, in the order of the plan."""
    found: Counter[WorkerKind] = Counter()
    for bucket in plan.buckets:
        if bucket.num_pending:
            found[WorkerKind(bucket.model, bucket.parallel)] += bucket.num_pending
    return dict(found)


def pending_clips(
    plan: Plan, kind: WorkerKind, is_wanted: Callable[[Part], bool] = lambda _: True
) -> Iterator[ClipSpec]:
    """Stream the pending clips of a kind bucket by bucket, as the plan has them in order.

    Clips of a bucket come in the manifest's order. Where a switch of LoRAs is slow, since they are
    fused, all clips with equal LoRAs come one after the other, and so do the buckets among them.

    Each large bucket takes a walk over the manifest, and small ones share walks: two walks in
    succession bring more than `MAX_HELD_CLIPS` clips, so many buckets take no more of them.

    Args:
        is_wanted: returns False from when no further clip of a part is wanted.

    Raises:
        ManifestError: as `Plan.pending`.
    """
    for parts in _walks(pending_parts(plan, kind)):
        wanted = [part for part in parts if is_wanted(part)]
        if len(wanted) == 1:
            yield from _while_wanted(plan.pending_in(wanted, are_held=False), is_wanted)
        elif wanted:
            held: dict[Part, list[ClipSpec]] = {part: [] for part in wanted}
            for part, spec in plan.pending_in(wanted, are_held=True):
                held[part].append(spec)
            clips = ((part, spec) for part, specs in held.items() for spec in specs)
            for part, spec in clips:
                if is_wanted(part):
                    plan.check_unchanged()
                    yield spec


def _while_wanted(
    clips: Iterator[tuple[Part, ClipSpec]], is_wanted: Callable[[Part], bool]
) -> Iterator[ClipSpec]:
    """Yield the clips of one part, and read no further once no more are wanted."""
    for part, spec in clips:
        if not is_wanted(part):
            return
        yield spec


def pending_parts(plan: Plan, kind: WorkerKind) -> list[Part]:
    """Return the parts of a kind that have pending clips, in the order of a run."""
    parts = [part for part in plan.parts if part.num_pending and kind.has(part.bucket)]
    return sorted(parts, key=lambda part: part.lora_choice)


def _walks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Yield parts that are read together: as many as may be held, or a larger one."""
    walk, num_clips = list[Part](), 0
    for part in parts:
        if walk and num_clips + part.num_pending > MAX_HELD_CLIPS:
            yield walk
            walk, num_clips = [], 0
        walk.append(part)
        num_clips += part.num_pending
    if walk:
        yield walk


def reserved_by(
    kind: WorkerKind, catalog: Catalog, config: WorkerConfig, machines: Machines
) -> RankResources:
    """Return the resources that each single worker, or each rank of a group, reserves."""
    device = catalog.get(kind.model).config.device
    placement = config.placement_of(kind.model)
    on_cpu = RankResources(config.num_cpus, 0, placement.resources, placement.labels)
    has_gpu = placement.num_gpus is not None or any(
        machine.get("GPU", 0) >= 1 and on_cpu.may_be_on(machine) for machine in machines
    )
    if device == "cuda" or (device == "auto" and has_gpu):
        return replace(on_cpu, num_gpus=placement.num_gpus or 1)
    return on_cpu


def check_whole_gpus(kind: WorkerKind, reserved: RankResources) -> None:
    """Refuse a group whose ranks would share a GPU.

    Raises:
        PlacementError: each rank reserves a share of one.
    """
    if 0 < reserved.num_gpus < 1:
        raise PlacementError(
            f"each rank of a group needs a GPU of its own: {kind.model} has groups of "
            f"{kind.parallel.degree} ranks and workers.num_gpus={reserved.num_gpus:g}; set "
            f"workers.models[{kind.model}].num_gpus=1, or render each clip on one device"
        )


def demand_of(
    kind: WorkerKind, catalog: Catalog, config: WorkerConfig, machines: Machines, num_clips: int
) -> Demand:
    """Return the workers of a kind that a run wants.

    Args:
        num_clips: pending clips of the kind.
    """
    reserved = reserved_by(kind, catalog, config, machines)
    return Demand(kind.parallel, reserved, num_clips, config.count, config.wait_for_resources_s)


def check_capacity(
    plan: Plan, catalog: Catalog, config: WorkerConfig, machines: Machines, *, may_grow: bool
) -> None:
    """Refuse a plan with a group that does not fit into the cluster.

    Args:
        may_grow: True if the run waits for a cluster that has no node for even one rank.

    Raises:
        PlacementError: a group has more ranks than fit, or shares of GPUs.
    """
    for kind in pending_kinds(plan):
        reserved = reserved_by(kind, catalog, config, machines)
        if kind.parallel.degree > 1:
            check_whole_gpus(kind, reserved)
        is_empty = not any(reserved.fit_into(machine) for machine in machines)
        if kind.parallel.degree > 1 and not (may_grow and is_empty):
            check_group_fits(machines, kind.parallel, reserved)
