"""The attribution of worker losses to nodes. Loads without torch.

A node is at fault once several of its workers died, or failed clip after clip, with clips that
then passed on another node. A clip that kills workers on every node counts against none of them.
"""

from collections import defaultdict
from collections.abc import Set as AbstractSet

from jobs.schedule.events import Attempt, WorkerId


class NodeAttribution:
    """The workers that each node lost since a clip was last done there.

    Args:
        max_losses: number of lost workers from which a node is cordoned.
    """

    def __init__(self, max_losses: int) -> None:
        self._max_losses = max_losses
        self._losses: defaultdict[str, set[WorkerId]] = defaultdict(set)

    def attribute(self, worker: WorkerId, nodes: AbstractSet[str]) -> None:
        """Count the worker as lost on each of its nodes, since any of them may be at fault."""
        for node in nodes:
            self._losses[node].add(worker)

    def record_done(self, attempt: Attempt, nodes: AbstractSet[str]) -> None:
        """Clear the nodes on which a clip passed; attribute its earlier losses to the others."""
        for worker, node in attempt.losses:
            self._losses[node].add(worker)
        for node in nodes:
            self._losses.pop(node, None)

    def cordoned(self, nodes: AbstractSet[str]) -> frozenset[str]:
        """Return the nodes that get no new workers; none if every node of `nodes` is at fault.

        Args:
            nodes: nodes on which the run's workers are.
        """
        faulty = frozenset(
            node for node, workers in self._losses.items() if len(workers) >= self._max_losses
        )
        return faulty if faulty and nodes - faulty else frozenset()
