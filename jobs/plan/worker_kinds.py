"""The kinds of worker that a plan needs, the resources and the number of each. Loads without torch.

A run gives the whole cluster to one kind after the other. So counts use all resources of the
machines, not the free ones. `demand` says how many workers a run wants of a kind.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from jobs.config import WorkerConfig
from jobs.manifest.rows import Catalog
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import Machines, RankResources, check_group_fits
from jobs.plan.plan import Plan
from jobs.types import ClipSpec
from pipelines.lora_choice import LoraChoice
from pipelines.parallel_config import ParallelConfig

MAX_GROUPED_CHOICES = 64  # each takes a walk over the manifest


@dataclass(frozen=True)
class WorkerKind:
    """A model, and the devices of one worker that share a clip."""

    model: str
    parallel: ParallelConfig

    def renders(self, spec: ClipSpec) -> bool:
        return (spec.model.name, spec.parallel) == (self.model, self.parallel)


def pending_kinds(plan: Plan) -> dict[WorkerKind, int]:
    """Return the number of pending clips of each kind, in the order of the plan."""
    found: Counter[WorkerKind] = Counter()
    for bucket in plan.buckets:
        if bucket.num_pending:
            found[WorkerKind(bucket.model, bucket.parallel)] += bucket.num_pending
    return dict(found)


def pending_clips(plan: Plan, kind: WorkerKind, catalog: Catalog) -> Iterator[ClipSpec]:
    """Stream the pending clips of a kind, in an order in which its workers seldom switch LoRAs.

    That is the manifest's order, unless a switch is slow since the LoRAs are fused. Then clips with
    equal LoRAs come one after the other, each choice from a walk of its own over the manifest.

    Raises:
        ManifestError: as `Plan.pending`.
    """

    def of_kind() -> Iterator[ClipSpec]:
        return filter(kind.renders, plan.pending())

    choices = dict[tuple[LoraChoice, ...] | None, None]()
    if catalog.get(kind.model).config.fuse_loras:
        for spec in of_kind():
            choices.setdefault(spec.request.loras)
            if len(choices) > MAX_GROUPED_CHOICES:
                break
    if not 2 <= len(choices) <= MAX_GROUPED_CHOICES:
        yield from of_kind()
        return
    for choice in choices:
        yield from (spec for spec in of_kind() if spec.request.loras == choice)


def reserved_by(
    kind: WorkerKind, catalog: Catalog, config: WorkerConfig, machines: Machines
) -> RankResources:
    """Return the resources that each single worker, or each rank of a group, reserves."""
    device = catalog.get(kind.model).config.device
    has_gpu = any(machine.get("GPU", 0) >= 1 for machine in machines)
    return RankResources(
        config.num_cpus, num_gpus=int(device == "cuda" or (device == "auto" and has_gpu))
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
        PlacementError: a group has more ranks than fit.
    """
    for kind in pending_kinds(plan):
        reserved = reserved_by(kind, catalog, config, machines)
        is_empty = not any(reserved.fit_into(machine) for machine in machines)
        if kind.parallel.degree > 1 and not (may_grow and is_empty):
            check_group_fits(machines, kind.parallel, reserved)
