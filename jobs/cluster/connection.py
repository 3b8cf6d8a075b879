"""The Ray cluster: how a command connects to it, what it has in all, and what it will take away."""

import ray
import ray._private.state
import ray.exceptions

from jobs.errors import NoClusterError


def connect() -> None:
    """Makes this process a driver of the cluster that RAY_ADDRESS names, or of one that it starts on this machine.

    Raises:
        NoClusterError: there is none.
    """
    try:
        ray.init(log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise NoClusterError(f"no Ray cluster: {error}; correct or unset RAY_ADDRESS") from error


def disconnect() -> None:
    """Takes seconds, which a process that was told to end may not have: whatever else it has to do comes first."""
    ray.shutdown()


def cluster_machines() -> list[dict[str, float]]:
    """What each node that is alive has in all, by Ray's names."""
    return [
        {name: float(amount) for name, amount in node["Resources"].items()}
        for node in ray.nodes()
        if node["Alive"]
    ]


def cluster_nodes() -> list[dict[str, object]]:
    """The nodes that are alive: id, host and resources."""
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
    """Nodes that the cluster will take away, such as after a spot notice. Ray has no public call for it."""
    try:
        return frozenset(ray._private.state.state.get_draining_nodes())
    except (
        ray.exceptions.RaySystemError
    ):  # the cluster does not answer now; whether it is gone, its actors say
        return frozenset()
