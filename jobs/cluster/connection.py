"""The connection to the Ray cluster, its nodes and their resources."""

import contextlib
import logging
import signal
from collections.abc import Generator

import ray

from jobs.cluster.joined_cluster import JoinedCluster, job_config
from jobs.cluster.ray_errors import first_line
from jobs.cluster.reach import check_start, existing_cluster, reach, start_remedy
from jobs.ending import (
    ExitCode,
    end_process,
    ended_after,
    ended_by_signals,
    stop_reason,
    stopped_by_signals,
)
from jobs.errors import ClusterLostError, NoClusterError, RefusedError, StoppedError
from jobs.text import shown
from nagfarm import OVERWRITTEN, ROOT, claim_packages, foreign_packages, is_nag_overwritten

HOOK = "worker_process_setup_hook"
HOOK_MODULE = claim_packages.__module__
CONNECT_S = 180.0  # a local cluster has taken 60 s on a busy machine


@contextlib.contextmanager
def connected() -> Generator[JoinedCluster]:
    """Connect this process to a cluster for the length of the block.

    It is the cluster of RAY_ADDRESS, or one that is started on this machine. Hold no lease while
    this connects: if Ray holds the main thread for too long, or for longer than a signal allows,
    the process ends at once. To disconnect takes seconds, which a process that got SIGTERM may not
    have, so it must do everything else inside the block.

    Raises:
        NoClusterError: Ray does not answer or does not start.
        StoppedError: a signal asked this process to stop while it connected.
    """
    may_grow = _connect_or_stop()
    try:
        yield JoinedCluster.of_driver(may_grow=may_grow)
    except ClusterLostError as error:
        # All else is done. An exit in good order waits for the cluster, and then crashes.
        end_process(f"stopped: {error}", ExitCode.STOPPED)
    except BaseException:
        ray.shutdown()
        raise
    ray.shutdown()


def _connect_or_stop() -> bool:
    with ended_by_signals(1), stopped_by_signals():
        try:
            return _connect()
        except (NoClusterError, KeyboardInterrupt):
            ray.shutdown()
            raise
        except SystemExit as error:  # Ray's own handler of SIGTERM exits
            ray.shutdown()
            raise StoppedError(stop_reason(signal.SIGTERM)) from error


def _connect() -> bool:
    """Connect, and return True if the cluster was there before."""
    address = existing_cluster()
    if address is None:
        check_start()
    else:
        reach(address)
    environment = _own_packages()
    remedy = start_remedy() if address is None else "look at the logs of its head"
    late = f"no Ray cluster: Ray did not answer within {CONNECT_S:g} s; {remedy}"
    try:
        with ended_after(CONNECT_S, late, ExitCode.UNAVAILABLE):
            ray.init(log_to_driver=False, logging_level=logging.WARNING, runtime_env=environment)
    # Ray raises Exception itself, and what the system calls of a start raise.
    except Exception as error:
        if address is not None:
            raise address.refusal(first_line(error.__cause__ or error)) from error
        text = f"Ray did not start on this machine: {first_line(error)}; {start_remedy()}"
        raise NoClusterError(text) from error
    return address is not None


def _own_packages() -> dict[str, str] | None:
    """Return the environment in which workers find nagfarm's packages in spite of others.

    Ray puts the driver's folder, or the job's `working_dir`, first on the path of every worker. The
    hook costs each worker a process of its own, so it is left out where nothing is in the way.

    Raises:
        RefusedError: a module `nagfarm` is in the way, too, and the hook would not be found; or the
            job has a hook of its own, and Ray takes one; or another `nag` was installed over ours.
    """
    if is_nag_overwritten():
        raise RefusedError(f"{shown(str(ROOT / 'nag'), 500)} {OVERWRITTEN}")
    foreign = foreign_packages()
    if not (hiding := sorted(foreign.keys() - {HOOK_MODULE})):
        return None
    if place := foreign.get(HOOK_MODULE):
        raise RefusedError(f"{shown(place, 500)} hides nagfarm from its workers: rename it")
    if HOOK in job_config("runtime_env"):
        place = shown(foreign[hiding[0]], 500)
        raise RefusedError(
            f"{place} hides nagfarm's packages from its workers, which find them by a {HOOK}, and "
            "the job's runtime_env has one, too: rename the first, or remove the second"
        )
    return {HOOK: f"{HOOK_MODULE}.{claim_packages.__name__}"}


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
