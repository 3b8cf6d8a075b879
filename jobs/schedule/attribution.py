"""Whether a machine or a clip is to blame when workers die. Loads without torch.

Decides that a machine is, once workers of it died, or had to be set aside, with clips that then passed on another one;
a clip that kills wherever it goes is held against no machine.
"""

from collections import defaultdict
from collections.abc import Set as AbstractSet

from jobs.schedule.events import Attempt, WorkerId


class NodeBlame:
    """Workers lost by each node since a clip was done there.

    Args:
        limit: after so many a node is to be avoided.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lost: defaultdict[str, set[WorkerId]] = defaultdict(set)

    def set_aside(self, worker: WorkerId, nodes: AbstractSet[str]) -> None:
        """A worker failed clip after clip; one that lies on several machines may have failed for any of them."""
        for node in nodes:
            self._lost[node].add(worker)

    def done(self, attempt: Attempt, nodes: AbstractSet[str]) -> None:
        """A clip passed on some nodes: others where workers died with it are to blame, and these are not."""
        for worker, lost_on in attempt.lost:
            self._lost[lost_on].add(worker)
        for node in nodes:
            self._lost.pop(node, None)

    def to_avoid(self, nodes: AbstractSet[str]) -> frozenset[str]:
        """Nodes to keep off, as long as one of `nodes`, on which workers are, is not among them."""
        bad = {node for node, workers in self._lost.items() if len(workers) >= self._limit}
        return frozenset(bad) if nodes - bad else frozenset()
