"""The number of groups of ranks that fit into a cluster, and the error for one that does not.

Counts all resources of each machine, not the free ones, since a run has the cluster to itself.
Loads without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.errors import PlacementError
from jobs.text import counted
from pipelines.parallel_config import ParallelConfig

Machines = Sequence[Mapping[str, float]]  # all resources of each machine, in Ray's words


@dataclass(frozen=True)
class RankResources:
    """The resources that each rank reserves.

    Args:
        num_gpus: number of GPUs; 0 renders on the CPU.
    """

    num_cpus: int
    num_gpus: int = 0

    def __str__(self) -> str:
        cpus = counted(self.num_cpus, "CPU")
        if not self.num_gpus:
            return cpus
        return f"{counted(self.num_gpus, 'GPU')} and {cpus}"

    def fit_into(self, machine: Mapping[str, float]) -> int:
        """Return the number of ranks that fit into a machine, by its resources in Ray's words."""
        by_cpu = int(machine.get("CPU", 0) // self.num_cpus)
        return min(by_cpu, int(machine.get("GPU", 0) // self.num_gpus)) if self.num_gpus else by_cpu


def count_groups(machines: Machines, parallel: ParallelConfig, rank: RankResources) -> int:
    """Return the number of groups, or of single workers, that fit at once.

    All ranks of a group are on one machine, unless the group may span several.
    """
    ranks = [rank.fit_into(machine) for machine in machines]
    if parallel.across_hosts:
        return sum(ranks) // parallel.degree
    return sum(count // parallel.degree for count in ranks)


def check_group_fits(machines: Machines, parallel: ParallelConfig, rank: RankResources) -> None:
    """Refuse a group that does not fit into the cluster, however long it waits.

    Raises:
        PlacementError: the group does not fit; the message names the largest degree that does.
    """
    if count_groups(machines, parallel, rank):
        return
    ranks = [rank.fit_into(machine) for machine in machines]
    largest, total = max(ranks, default=0), sum(ranks)
    most = total if parallel.across_hosts else largest
    scope = "the cluster" if parallel.across_hosts else "one machine"
    remedies = [f"ask for at most {most}"] if most > 1 else []
    remedies += [] if most > 1 else ["render each clip on one device"] if most else []
    if not parallel.across_hosts and total >= parallel.degree:
        remedies.append(
            "or let groups lie on several machines, which is slower, with "
            "parallel.across_hosts: true"
        )
    remedies.append("or add machines" if remedies else "add machines")
    raise PlacementError(
        f"no place for a group of {parallel.degree} ranks ({parallel}), each of {rank}, in {scope}"
        f": the largest of {len(machines)} has room for {largest}, all of them for {total}; "
        f"{', '.join(remedies)}"
    )
