"""The checks of every node of the cluster that a run would join. Loads without Ray."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from jobs.checks.machine import Check, package_versions
from jobs.checks.node import NodeQuestion, examine
from jobs.checks.weights import ModelQuestion
from jobs.errors import NoClusterError
from jobs.settings.store_config import StoreConfig

SHARE_OF_CHECKS = 0.75  # in a node's deadline; the rest is for Ray to start the task
MAX_NAMED = 6  # nodes that a finding lists
ANSWER = "answer"


@dataclass(frozen=True)
class NodeReport:
    """The checks of one node.

    Args:
        name: its host, with the start of its id if several nodes are on that host.
        address: its address in the cluster.
        resources: CPUs and GPUs that Ray offers there, as text.
        checks: its findings; a single failed one named "answer" if it did not answer.
    """

    name: str
    address: str
    resources: str
    checks: tuple[Check, ...]

    def cell(self, check: str) -> str:
        """Return the mark of all findings of one check: FAIL if there is one, else ok if any is."""
        marks = {one.mark for one in self.checks if one.name == check}
        return next((mark for mark in ("FAIL", "ok", "note") if mark in marks), "-")


@dataclass(frozen=True)
class Finding:
    """One finding, and the nodes that have it."""

    check: Check
    nodes: tuple[str, ...]
    is_everywhere: bool

    def __str__(self) -> str:
        named = ", ".join(self.nodes[:MAX_NAMED])
        more = f" and {len(self.nodes) - MAX_NAMED} more" if len(self.nodes) > MAX_NAMED else ""
        where = "every node" if self.is_everywhere else f"{named}{more}"
        return f"{self.check.mark:<4}  {self.check.name} on {where}: {self.check.message}"


def check_nodes(
    models: tuple[ModelQuestion, ...], output: str | None, store: StoreConfig, deadline_s: float
) -> list[NodeReport]:
    """Check every node that is alive, side by side.

    Args:
        models: the models that they shall have.
        output: URI of an output; None to leave the store out.
        store: the settings of the store.
        deadline_s: seconds until a node without an answer is reported as such.

    Raises:
        NoClusterError: no cluster is there.
    """
    from jobs.cluster.connection import connected
    from jobs.cluster.nodes.node_tasks import ClusterNode, ask_nodes
    from jobs.cluster.reach import existing_cluster

    if existing_cluster() is None:
        raise NoClusterError(
            "no Ray cluster is running on this machine: run this on one of its nodes, with "
            "RAY_ADDRESS=HOST:PORT, or as a job: `ray job submit -- nagfarm doctor --cluster`"
        )
    versions = package_versions()

    def question(node: ClusterNode) -> "partial[tuple[Check, ...]]":
        asked = NodeQuestion(
            models,
            output,
            store,
            versions,
            node.num_cpus,
            node.num_gpus,
            SHARE_OF_CHECKS * deadline_s,
        )
        return partial(examine, asked)

    with connected():
        answers = ask_nodes(question, deadline_s)
    hosts = Counter(answer.node.host for answer in answers)
    return [
        NodeReport(
            node.host if hosts[node.host] == 1 else f"{node.host}/{node.node_id[:6]}",
            node.address,
            f"{node.num_cpus:g} CPU, {node.num_gpus:g} GPU",
            answer.value or (Check(ANSWER, is_ok=False, message=answer.fault),),
        )
        for answer in answers
        for node in (answer.node,)
    ]


def findings(reports: Sequence[NodeReport]) -> list[Finding]:
    """Return each finding once, with its nodes: what is right first, faults last."""
    nodes: dict[Check, list[str]] = {}
    for report in reports:
        for check in report.checks:
            nodes.setdefault(check, []).append(report.name)
    order = {True: 0, None: 1, False: 2}
    return [
        Finding(check, tuple(names), len(names) == len(reports) > 1)
        for check, names in sorted(nodes.items(), key=lambda item: order[item[0].is_ok])
    ]
