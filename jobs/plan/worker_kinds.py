"""Which kinds of worker a plan needs, what each reserves, and how many of it there are to be. Loads without torch.

A run has the whole cluster for one kind after the other. So all is counted by what the machines have in all, not by
what is free; how many groups these have room for is `group_places`' to say.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.config import WorkerConfig
from jobs.errors import NoWorkersError
from jobs.manifest.manifest import Catalog
from jobs.plan.group_capacity import RankResources, check_placement, count_groups
from jobs.plan.plan import Plan
from jobs.types import ClipSpec
from pipelines.parallel_config import ParallelConfig

Machines = Sequence[Mapping[str, float]]  # what each has in all, in Ray's words


@dataclass(frozen=True)
class WorkerKind:
    """A model, and how many devices of one worker share a clip, and how."""

    model: str
    parallel: ParallelConfig

    def renders(self, spec: ClipSpec) -> bool:
        return (spec.model.name, spec.parallel) == (self.model, self.parallel)


def pending_kinds(plan: Plan) -> dict[WorkerKind, int]:
    """Clips to be rendered by each kind, in the order of the plan."""
    found: Counter[WorkerKind] = Counter()
    for group in plan.groups:
        if group.num_pending:
            found[WorkerKind(group.model, group.parallel)] += group.num_pending
    return dict(found)


def reserved_by(
    kind: WorkerKind, catalog: Catalog, config: WorkerConfig, machines: Machines
) -> RankResources:
    """What each worker on one device, and each rank of a group, reserves."""
    device = catalog.get(kind.model).config.device
    has_gpu = any(machine.get("GPU", 0) >= 1 for machine in machines)
    return RankResources(
        config.num_cpus, num_gpus=int(device == "cuda" or (device == "auto" and has_gpu))
    )


def count_workers(
    parallel: ParallelConfig,
    reserved: RankResources,
    config: WorkerConfig,
    machines: Machines,
    num_clips: int,
) -> int:
    """How many workers to keep: as configured, or one for each device or place, and never more than there are clips.

    Raises:
        NoWorkersError: the cluster has room for no worker on one device.
    """
    if parallel.degree > 1:
        num_places = count_groups(machines, parallel, reserved)
        return max(1, min(config.count or num_places, num_places, num_clips))
    total: Counter[str] = Counter()
    for machine in machines:
        total.update(machine)
    by_device = total["GPU"] if reserved.num_gpus else total["CPU"] // reserved.num_cpus
    wanted = int(by_device) if config.count is None else config.count
    if wanted < 1:
        kind = "GPU" if reserved.num_gpus else f"{reserved.num_cpus} CPUs"
        raise NoWorkersError(f"the cluster has no {kind} for a worker; it has {dict(total)}")
    return min(wanted, num_clips)


def check_places(plan: Plan, catalog: Catalog, config: WorkerConfig, machines: Machines) -> None:
    """Refuses what a cluster has no place for.

    Raises:
        PlacementError: a group has more ranks than there is room for.
    """
    for kind in pending_kinds(plan):
        if kind.parallel.degree > 1:
            check_placement(machines, kind.parallel, reserved_by(kind, catalog, config, machines))
