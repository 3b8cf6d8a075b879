"""How many groups of ranks a cluster has room for, and what to say where it has room for none. Loads without torch.

Decides by what the machines have in all, not by what is free: a pool has the cluster to itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.errors import PlacementError
from pipelines.parallel_config import ParallelConfig


@dataclass(frozen=True)
class RankResources:
    """What each rank reserves.

    Args:
        num_gpus: 0 renders on the CPU.
    """

    num_cpus: int
    num_gpus: int = 0

    def __str__(self) -> str:
        gpus = (
            f"{self.num_gpus} GPU{'s' if self.num_gpus > 1 else ''} and " if self.num_gpus else ""
        )
        return f"{gpus}{self.num_cpus} CPU{'s' if self.num_cpus > 1 else ''}"

    def fit_into(self, machine: Mapping[str, float]) -> int:
        """Ranks for which a machine has room, by its resources in Ray's words."""
        by_cpu = int(machine.get("CPU", 0) // self.num_cpus)
        return min(by_cpu, int(machine.get("GPU", 0) // self.num_gpus)) if self.num_gpus else by_cpu


def count_groups(
    machines: Sequence[Mapping[str, float]], parallel: ParallelConfig, rank: RankResources
) -> int:
    """Groups that find a place at once: each on one machine, unless it may lie across several."""
    ranks = [rank.fit_into(machine) for machine in machines]
    if parallel.across_hosts:
        return sum(ranks) // parallel.degree
    return sum(count // parallel.degree for count in ranks)


def check_placement(
    machines: Sequence[Mapping[str, float]], parallel: ParallelConfig, rank: RankResources
) -> None:
    """Refuses a group for which the cluster has no place, however long it waits.

    Raises:
        PlacementError: with the largest degree that has one.
    """
    if count_groups(machines, parallel, rank):
        return
    ranks = [rank.fit_into(machine) for machine in machines]
    largest, total = max(ranks, default=0), sum(ranks)
    most = total if parallel.across_hosts else largest
    where = "the cluster" if parallel.across_hosts else "one machine"
    remedies = [f"ask for at most {most}"] if most > 1 else []
    remedies += [] if most > 1 else ["render each clip on one device"] if most else []
    if not parallel.across_hosts and total >= parallel.degree:
        remedies.append(
            "or let groups lie on several machines, which is slower, with parallel.across_hosts: true"
        )
    remedies.append("or add machines" if remedies else "add machines")
    raise PlacementError(
        f"no place for a group of {parallel.degree} ranks ({parallel}), each of {rank}, in {where}: "
        f"the largest of {len(machines)} has room for {largest}, all of them for {total}; {', '.join(remedies)}"
    )
