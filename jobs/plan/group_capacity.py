"""The number of groups of ranks that fit into a cluster, and the error for one that does not.

Counts all resources of each machine, not the free ones, since a run has the cluster to itself.
Loads without torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from jobs.errors import PlacementError
from jobs.settings.worker_config import matches
from jobs.text import counted
from pipelines.parallel_config import ParallelConfig

# All resources of each machine, in Ray's words; a label is a resource `label:NAME=VALUE`.
Machines = Sequence[Mapping[str, float]]
LABEL = "label:"
UNITS = 10_000  # Ray counts resources in ten-thousandths


def label_resources(labels: Mapping[str, str]) -> dict[str, float]:
    """Return the labels of a machine as `Machines` has them."""
    return {f"{LABEL}{name}={value}": 1.0 for name, value in labels.items()}


@dataclass(frozen=True)
class RankResources:
    """The resources that each rank reserves.

    Args:
        num_gpus: number of GPUs, or a share of one; 0 renders on the CPU.
        others: further resources, by name.
        labels: selector of each label that a machine must have.
    """

    num_cpus: int
    num_gpus: float = 0
    others: Mapping[str, float] = field(default_factory=dict[str, float])
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        gpus = f"{self.num_gpus:g} GPU{'' if self.num_gpus == 1 else 's'}"
        parts = [gpus] if self.num_gpus else []
        parts += [counted(self.num_cpus, "CPU")]
        parts += [f"{amount:g} {name}" for name, amount in self.others.items()]
        return " and ".join(parts)

    @property
    def labels_text(self) -> str:
        """Return the labels for people, such as `gpu=A100 and zone=!in(a, b)`."""
        return " and ".join(f"{name}={selector}" for name, selector in self.labels.items())

    @cached_property
    def bundle(self) -> dict[str, float]:
        """Return the resources in Ray's words."""
        gpus = {"GPU": float(self.num_gpus)} if self.num_gpus else {}
        return {"CPU": float(self.num_cpus)} | gpus | dict(self.others)

    def may_be_on(self, machine: Mapping[str, float]) -> bool:
        """Return True if the labels of a machine match."""
        if not self.labels:
            return True
        has = dict(
            key.removeprefix(LABEL).split("=", 1) for key in machine if key.startswith(LABEL)
        )
        return all(matches(selector, has.get(name)) for name, selector in self.labels.items())

    def fit_into(self, machine: Mapping[str, float]) -> int:
        """Return the number of ranks that fit into a machine; a share of a GPU lies on one GPU."""
        if not self.may_be_on(machine):
            return 0
        return min(
            _times(name, amount, machine.get(name, 0.0)) for name, amount in self.bundle.items()
        )

    def taken_from(self, machine: Mapping[str, float], num_ranks: int) -> Mapping[str, float]:
        """Return a machine without the resources of some ranks."""
        if not num_ranks:
            return machine
        taken = {
            name: machine.get(name, 0.0) - num_ranks * amount
            for name, amount in self.bundle.items()
        }
        return {**machine, **taken}


def _times(name: str, amount: float, has: float) -> int:
    """Return how many times an amount of a resource fits into what a machine has."""
    needed, left = round(amount * UNITS), round(has * UNITS)
    if name != "GPU":
        return left // needed
    whole, rest = divmod(left, UNITS)
    return whole * (UNITS // needed) + rest // needed


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
