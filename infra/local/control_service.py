"""The control service of a local Ray cluster, the GCS: killed, or killed and started again.

A cluster loses it with the machine of its head. Under KubeRay's fault tolerance it comes back with
its state at the same address, and the cluster's nodes and drivers wait for it.
"""

import subprocess
import threading

import psutil

from infra.local.ray_cluster import LocalRay

KEPT = {"RAY_gcs_storage": "rocksdb"}  # for the cluster's environment: the state survives a restart


def kill_control_service(cluster: LocalRay) -> None:
    """Kill the service for good, and wait until the head has noticed and ended, too."""
    _control_service(cluster).kill()
    cluster.wait()


def restart_control_service(cluster: LocalRay, down_s: float) -> None:
    """Kill the service of a cluster with `KEPT`, and start it again after some seconds.

    The head's program is suspended for good, since it would end the head meanwhile.
    """
    service = _control_service(cluster)
    command, environment = service.cmdline(), service.environ()
    cluster.suspend_head()
    service.kill()
    threading.Event().wait(down_s)  # the fault's length
    subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # named by the cluster's folder, so that `stop` ends it


def _control_service(cluster: LocalRay) -> psutil.Process:
    (found,) = (process for process in cluster.processes() if process.name() == "gcs_server")
    return found
