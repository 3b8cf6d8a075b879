"""The connection to the Ray cluster: its nodes, their resources, and those that it drains."""

import ray
import ray._private.state
import ray.exceptions

from jobs.errors import NoClusterError


def connect() -> None:
    """Connect this process to the cluster of RAY_ADDRESS, or start one on this machine.

    Raises:
        NoClusterError: Ray does not answer or does not start.
    """
    try:
        ray.init(log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NoClusterError(f"no Ray cluster: {error}; correct or unset RAY_ADDRESS") from error


def disconnect() -> None:
    """Disconnect from the cluster, which takes seconds.

    A process that got SIGTERM may not have these seconds, so it must do everything else first.
    """
    ray.shutdown()


def cluster_machines() -> list[dict[str, float]]:
    """Return the total resources of each node that is alive, by Ray's names."""
    return [
        {name: float(amount) for name, amount in node["Resources"].items()}
        for node in ray.nodes()
        if node["Alive"]
    ]


def cluster_nodes() -> list[dict[str, object]]:
    """Return the id, host and resources of each node that is alive."""
    return [
        {
            "node_id": node["NodeID"],
            "host": node["NodeManagerHostname"],
            "resources": {
                name: node["Resources"][name]
                for name in ("CPU", "GPU", "memory")
                if name in node["Resources"]
            },
        }
        for node in ray.nodes()
        if node["Alive"]
    ]


def draining_nodes() -> frozenset[str]:
    """Return the ids of the nodes that the cluster will take away, such as after a spot notice.

    Ray has no public call for it.
    """
    try:
        return frozenset(ray._private.state.state.get_draining_nodes())
    # The cluster does not answer now. If it is gone, the calls to its actors raise.
    except ray.exceptions.RaySystemError:
        return frozenset()
