"""The cluster that this process has joined, and a look at it: its nodes, and those that it drains.

The resources that Ray reserves for the driver itself are left out: no worker can have them.
"""

import contextlib
import json
import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import ray
import ray._private.state
import ray.exceptions
from ray.experimental.internal_kv import (
    _internal_kv_del,
    _internal_kv_get,
    _internal_kv_list,
    _internal_kv_put,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from jobs.cluster.ray_errors import first_line, last_line
from jobs.errors import ClusterLostError, JobError, NodeSilentError
from jobs.plan.group_capacity import label_resources
from jobs.redaction import redact
from pipelines.errors import PipelineError

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set for the driver of a submitted job
NOTES = "nagfarm"  # the namespace of notes in Ray's key-value store
MAX_NOTES = 1000
P = ParamSpec("P")
T = TypeVar("T")
RESOURCES = {"CPU": "entrypoint_num_cpus", "GPU": "entrypoint_num_gpus"}


@dataclass(frozen=True)
class ClusterView:
    """One answer of the cluster.

    Args:
        nodes: all resources and labels of each node that is alive, by its id.
        draining: ids of the nodes that the cluster drains.
        held_by_driver: resources that Ray reserves for this driver; the nodes are without them.
        may_grow: False for a cluster that this process has started: it gets no nodes.
    """

    nodes: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, dict[str, float]])
    draining: frozenset[str] = frozenset()
    held_by_driver: Mapping[str, float] = field(default_factory=dict[str, float])
    may_grow: bool = True

    def machines(self, cordoned: frozenset[str] = frozenset()) -> list[Mapping[str, float]]:
        """Return the resources of each node on which a worker may start."""
        return list(self.open_nodes(cordoned).values())

    def open_nodes(self, cordoned: frozenset[str] = frozenset()) -> dict[str, Mapping[str, float]]:
        """Return those nodes by their ids."""
        closed = self.draining | cordoned
        return {node: resources for node, resources in self.nodes.items() if node not in closed}


@dataclass(frozen=True)
class JoinedCluster:
    """The cluster of this process.

    Args:
        may_grow: see `ClusterView`.
        driver_node: id of the driver's node.
        held_by_driver: see `ClusterView`.
    """

    may_grow: bool
    driver_node: str
    held_by_driver: Mapping[str, float]

    @classmethod
    def of_driver(cls, *, may_grow: bool) -> "JoinedCluster":
        """Return the cluster to which this process is connected."""
        node = ray.get_runtime_context().get_node_id()
        return cls(may_grow, node, driver_resources())

    def look(self) -> ClusterView:
        """Ask the cluster, and wait until it answers.

        Ray has no public call for draining nodes, and `ray.nodes` would connect anew after the end.
        """
        state = ray._private.state.state
        nodes = {
            node["NodeID"]: {name: float(amount) for name, amount in node["Resources"].items()}
            | label_resources(node["Labels"])
            for node in state.node_table()
            if node["Alive"]
        }
        for name, amount in self.held_by_driver.items():
            if self.driver_node in nodes and name in nodes[self.driver_node]:
                nodes[self.driver_node][name] -= amount
        draining = frozenset(state.get_draining_nodes())
        return ClusterView(nodes, draining, self.held_by_driver, self.may_grow)

    # notes that programs on the cluster leave for each other, whatever their job and namespace

    def write_note(self, name: str, text: bytes) -> None:
        """Write a note for other programs.

        Raises:
            ClusterLostError: the cluster does not answer now.
        """
        with _answered():
            _internal_kv_put(name, text, namespace=NOTES)

    def remove_note(self, name: str) -> None:
        """Remove a note, if it is there; raises as `write_note`."""
        with _answered():
            _internal_kv_del(name, namespace=NOTES)

    def read_notes(self, prefix: str) -> dict[str, bytes]:
        """Return the notes whose names begin with a prefix; raises as `write_note`."""
        with _answered():
            names = [
                name.decode(errors="replace") for name in _internal_kv_list(prefix, namespace=NOTES)
            ]
            found: dict[str, Any] = {
                name: _internal_kv_get(name, namespace=NOTES) for name in names[:MAX_NOTES]
            }
        return {name: text for name, text in found.items() if text is not None}

    def free(self) -> dict[str, dict[str, float]]:
        """Return the resources of each node that no job holds, by id; raises as `write_note`."""
        with _answered():
            return ray._private.state.state.available_resources_per_node()


@contextlib.contextmanager
def _answered() -> Generator[None]:
    try:
        yield
    except ray.exceptions.RayError as error:
        raise ClusterLostError(f"the Ray cluster does not answer: {error}") from error


def job_config(part: str) -> Mapping[str, Any]:
    """Return a part of what `ray job submit` tells this driver; empty for a driver of its own."""
    return json.loads(os.environ.get(JOB_CONFIG, "{}")).get(part) or {}


def driver_resources() -> dict[str, float]:
    """Return the resources that `ray job submit` reserves for this driver."""
    job = job_config("metadata").get("job_submission_id")
    found = _internal_kv_get(f"_ray_internal_job_info_{job}", namespace="job") if job else None
    info = json.loads(found or "{}")
    return {name: float(info[key]) for name, key in RESOURCES.items() if info.get(key)}


def ask_node(
    node: str, wait_s: float, question: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run a function in a process of one node, which needs no free device for that.

    Args:
        node: id of the node.
        wait_s: seconds for the answer.
        question: a function of a module that each node has.

    Raises:
        NodeSilentError: the node is gone, does not answer in time, or cannot run the function.
        JobError, PipelineError: the function raised it there.
    """
    place = NodeAffinitySchedulingStrategy(node, soft=False)
    options: Any = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": place}
    remote: Any = ray.remote(**options)(question)
    answer = remote.remote(*args, **kwargs)
    try:
        return ray.get(answer, timeout=wait_s)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (JobError, PipelineError)):
            raise error.cause from error
        raise NodeSilentError(redact(last_line(error))) from error  # such as no nagfarm there
    except ray.exceptions.RayError as error:
        ray.cancel(answer, force=True)
        raise NodeSilentError(first_line(error)) from error
