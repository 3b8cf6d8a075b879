"""One task on each node of the cluster that is alive, side by side, within one deadline.

A task takes no CPU and no GPU, so it also runs on a node whose devices are held. A node that does
not answer in time, or dies meanwhile, is an answer, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.ray_errors import last_line
from jobs.redaction import redact

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterNode:
    """A node that is alive.

    Args:
        num_cpus, num_gpus: devices that Ray offers there.
    """

    node_id: str
    host: str
    address: str
    num_cpus: float
    num_gpus: float


@dataclass(frozen=True)
class NodeAnswer(Generic[T]):
    """The value that one node returned, or why it returned none."""

    node: ClusterNode
    value: T | None
    fault: str = ""


def alive_nodes() -> list[ClusterNode]:
    """Return the nodes of the cluster, by name."""
    nodes = [
        ClusterNode(
            node["NodeID"],
            node["NodeManagerHostname"],
            node["NodeManagerAddress"],
            float(node["Resources"].get("CPU", 0)),
            float(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(nodes, key=lambda node: (node.host, node.node_id))


def ask_nodes(
    question: Callable[[ClusterNode], Callable[[], T]], deadline_s: float
) -> list[NodeAnswer[T]]:
    """Run a function on every node.

    Args:
        question: makes the function for a node, which must be picklable.
        deadline_s: seconds that all answers may take together.
    """
    asked = [(node, _ask(node, question(node))) for node in alive_nodes()]
    ready, late = ray.wait(
        [reference for _, reference in asked], num_returns=len(asked), timeout=deadline_s
    )
    for reference in late:
        ray.cancel(reference, force=True)
    return [
        _answer(node, reference)
        if reference in ready
        else NodeAnswer(node, None, f"did not answer within {deadline_s:g} s")
        for node, reference in asked
    ]


def _ask(node: ClusterNode, question: Callable[[], T]) -> Any:
    pinned = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
    return _REMOTE_CALL.options(scheduling_strategy=pinned).remote(question)


def _answer(node: ClusterNode, reference: Any) -> NodeAnswer[Any]:
    try:
        return NodeAnswer(node, ray.get(reference))
    except ray.exceptions.RayError as error:
        return NodeAnswer(node, None, redact(last_line(error)))


def _call(question: Callable[[], T]) -> T:
    return question()


# The process ends after one call: it may hold a thread that hangs, or torch.
_remote: Any = ray.remote
_REMOTE_CALL = _remote(num_cpus=0, max_retries=0, max_calls=1)(_call)
