"""A real Ray cluster on this machine, for the demo and the tests: `ray start --head`.

Decides how the cluster is started, when it is ready and how it is stopped. It has ports, a session
folder and a token of its own, so that it neither meets nor disturbs another cluster on the machine.
Every process that names the session folder belongs to the cluster. `ray_node` adds further nodes.
"""

import atexit
import contextlib
import json
import os
import secrets
import shutil
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

from infra.local.local_process import HERE, LocalProcess, Place, free_ports, processes_naming
from infra.local.ray_node import IS_UP, NO_LOG_MONITOR, START_S, LocalNode

STOP_WAIT_S = 5.0
NO_AUTOSCALER = "--no-monitor"  # nothing here grows or shrinks by itself
IDLE_MINUTES = 0.05  # then an autoscaler ends a node
FAKE_HEAD_ID = "f" * 51 + "00000"  # as Ray's fake autoscaler expects it
FAKE_HEAD_TYPE = "ray.head.default"
# Keys that Ray's autoscaler expects; its fake nodes need nothing of them.
UNUSED_LISTS = (
    *("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands"),
    *("setup_commands", "head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
)
FAKE_AUTOSCALER = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}
# For a cluster without an operator: its agents and workers collect figures all the time.
NO_METRICS = {"RAY_enable_metrics_collection": "0", "REPORTER_UPDATE_INTERVAL_MS": "600000"}


class LocalRayError(Exception):
    """The cluster could not be started."""


class LocalRay:
    """One cluster, running between `start` and `stop` or inside a `with`: a head and added nodes.

    Args:
        num_cpus: CPU slots that the head offers; with 0 it renders nothing.
        environment: variables of its workers besides this process's own; a store's credentials
            belong here. With RAY_gcs_storage, the folder for it is made here.
        token_path: a file with the token that clients must show; None makes one. A process that
            will be a driver itself needs the file beforehand, since ray reads its settings when it
            is imported.
        place: machine of the head.
        has_dashboard: False for a cluster that takes no jobs; it starts half as many processes.
        node_types: types of nodes for Ray's own fake autoscaler, which starts and ends them on this
            machine as the cluster's jobs need them; None for a cluster that stays as it is.
    """

    def __init__(
        self,
        num_cpus: int,
        environment: Mapping[str, str],
        token_path: Path | None = None,
        place: Place = HERE,
        *,
        has_dashboard: bool = True,
        node_types: Mapping[str, object] | None = None,
    ) -> None:
        self._num_cpus = num_cpus
        self._given_token_path = token_path
        self._extra = dict(environment)
        self._place = place
        self._has_dashboard = has_dashboard
        self._node_types = node_types
        self._folder: Path | None = None
        self._process: LocalProcess | None = None
        self._num_nodes = 0  # nodes added so far, stopped ones too
        self._nodes: list[LocalNode] = []
        self.address = ""
        self.dashboard_url = ""
        self.metrics_url = ""  # the head's, for Prometheus; each node has one
        self._agent_url = ""

    @property
    def folder(self) -> Path:
        """The session folder. Its path is short, because sockets lie in it."""
        assert self._folder is not None, "the cluster was not started"
        return self._folder

    @property
    def token_path(self) -> Path:
        return self._given_token_path or self.folder / "token"

    def environment(self) -> dict[str, str]:
        """Return the variables that a client of this cluster needs, such as `ray job submit`."""
        scripts = sysconfig.get_path("scripts")
        keeps_state = "RAY_gcs_storage" in self._extra
        return {
            **os.environ,
            **self._extra,
            **({"RAY_gcs_storage_path": str(self.folder / "gcs")} if keeps_state else {}),
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
            "RAY_ADDRESS": self.dashboard_url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self) -> None:
        """Start the cluster and wait until it runs, and its dashboard takes jobs.

        Raises:
            LocalRayError: it was not ready by the deadline; the message holds the end of its log.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="nf-"))
        atexit.register(self.stop)
        if self._given_token_path is None:
            write_token(self.token_path)
        port, dashboard_port, client_port, agent_port, metrics_port = free_ports(5)
        host = self._place.host
        self.address, self.dashboard_url = f"{host}:{port}", f"http://{host}:{dashboard_port}"
        self._agent_url = f"http://{host}:{agent_port}"
        self.metrics_url = f"http://{host}:{metrics_port}/metrics"
        command = [
            *self._place.prefix,
            *(ray_command(), "start", "--head", "--block", NO_LOG_MONITOR, self._autoscaler()),
            f"--include-dashboard={str(self._has_dashboard).lower()}",
            *(f"--port={port}", f"--node-ip-address={host}", f"--dashboard-host={host}"),
            *(f"--dashboard-port={dashboard_port}", f"--ray-client-server-port={client_port}"),
            *(f"--num-cpus={self._num_cpus}", f"--temp-dir={self._folder}"),
            *(f"--dashboard-agent-listen-port={agent_port}", "--disable-usage-stats"),
            f"--metrics-export-port={metrics_port}",
        ]
        self._process = LocalProcess(command, self._folder / "ray.log", self._node_environment())
        if not self._process.is_ready_by(time.monotonic() + START_S, self._is_ready):
            lines = self._process.last_log_lines()
            self.stop()
            raise LocalRayError(f"Ray did not start:\n{lines}")

    def _autoscaler(self) -> str:
        """Return the option of `ray start` about its autoscaler."""
        if self._node_types is None:
            return NO_AUTOSCALER
        head = {"resources": {"CPU": self._num_cpus}, "node_config": {}, "max_workers": 0}
        provider = {
            "type": "fake_multinode",
            "gcs_address": self.address,
            "head_node_id": FAKE_HEAD_ID,
            "use_node_id_as_ip": True,  # all nodes are on this machine
            "disable_node_updaters": True,  # they are for machines that SSH reaches
            "disable_launch_config_check": True,
        }
        config = {
            "cluster_name": "local",
            "max_workers": 100,
            "idle_timeout_minutes": IDLE_MINUTES,
            "upscaling_speed": 1.0,
            "provider": provider,
            "available_node_types": {FAKE_HEAD_TYPE: head, **self._node_types},
            "head_node_type": FAKE_HEAD_TYPE,
            **{name: {} for name in ("auth", "file_mounts")},
            **{name: [] for name in UNUSED_LISTS},
            "file_mounts_sync_continuously": False,
        }
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        return f"--autoscaling-config={path}"

    def add_node(
        self,
        num_cpus: int,
        place: Place = HERE,
        environment: Mapping[str, str] | None = None,
    ) -> LocalNode:
        """Start a further node and wait until the cluster knows it.

        Args:
            environment: further variables of this node, such as Ray's own for labels.

        Raises:
            LocalNodeError: it was not ready by the deadline; the message holds the end of its log.
        """
        self._num_nodes += 1
        node = LocalNode(
            (ray_command(), self.address),
            self.folder / f"n{self._num_nodes}",
            num_cpus,
            {**self._node_environment(), **(environment or {})},
            place,
        )
        self._nodes.append(node)
        return node

    def _node_environment(self) -> dict[str, str]:
        """Return the variables of `ray start`, which must not find a cluster's address there."""
        found = {name: value for name, value in self.environment().items() if name != "RAY_ADDRESS"}
        return found if self._node_types is None else {**found, **FAKE_AUTOSCALER}

    def _is_ready(self) -> bool:
        """Return True if the cluster runs and, with a dashboard, if that and its agent answer.

        The agent starts jobs. On a busy machine it is up many seconds after the dashboard.
        """
        if not self._has_dashboard:
            return IS_UP in (self.folder / "ray.log").read_text(errors="replace")
        return self._answers(f"{self.dashboard_url}/api/jobs/") and self._answers(
            f"{self._agent_url}/api/local_raylet_healthz"
        )

    def _answers(self, url: str) -> bool:
        headers = {"Authorization": f"Bearer {self.token_path.read_text()}"}
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 the URL is ours
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
                return answer.status == 200
        except OSError:  # refused, timed out, or answered with an error
            return False

    @property
    def is_alive(self) -> bool:
        """Return True while the head runs: its program ends with any of its processes."""
        return self._process is not None and self._process.is_running

    def wait(self) -> None:
        """Wait for the head's end."""
        if self._process is not None:
            self._process.wait()

    def suspend_head(self) -> None:
        """Stop the program that watches the head's processes; the cluster is not alive then."""
        if self._process is not None:
            self._process.suspend()

    def processes(self) -> list[psutil.Process]:
        """Return the living processes of the cluster."""
        return list(processes_naming(self._folder)) if self._folder else []

    def stop(self) -> None:
        """End every process of the cluster, by force after a wait. May be called again."""
        if self._folder is None:
            return
        for node in self._nodes:
            node.stop()
        self._nodes.clear()
        if self._process is not None:
            self._process.ask_to_end()
        _, alive = psutil.wait_procs(self.processes(), timeout=STOP_WAIT_S)
        while alive:
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=STOP_WAIT_S)
            alive = self.processes()  # a process may have started another meanwhile
        if self._process is not None:
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._process = None
        atexit.unregister(self.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def write_token(path: Path) -> None:
    """Write a new token into a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))


def ray_command() -> str:
    """Return the `ray` program of this Python's environment."""
    found = shutil.which("ray", path=sysconfig.get_path("scripts")) or shutil.which("ray")
    if found is None:
        raise LocalRayError(
            f"the program `ray` is missing: {sys.executable} -m pip install 'ray[default]'"
        )
    return found
