"""A further node of a local Ray cluster: a second `ray start`, with its own raylet.

Decides how the node is started, which processes belong to it, and how it is lost. Its folder lies
below the cluster's, so that stopping the cluster ends its processes too. Its workers keep temporary
files, the spool among them, in its folder, as on a machine of their own.
"""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from infra.local.local_process import HERE, LocalProcess, Place, free_ports, processes_naming

START_S = 120.0  # the longest time for the start of a head or a node
STOP_WAIT_S = 2.0  # a node has nothing to save
OBJECT_STORE_BYTES = 100_000_000  # videos never go through it
IS_UP = "Ray runtime started"  # `ray start` prints this once the cluster knows the node
# Nothing here reads the logs that it sends to drivers, and it polls all log files all the time.
NO_LOG_MONITOR = "--include-log-monitor=false"


class LocalNodeError(Exception):
    """The node could not be started."""


class LocalNode:
    """One node, running from the construction of this object to `stop` or `kill`.

    Args:
        command: the `ray` program and the address of the cluster that it joins.
        folder: a new folder below the cluster's; the processes of the node name it.
        num_cpus: CPU slots that the node offers.
        environment: variables of its workers.
        place: machine of the node.
    """

    def __init__(
        self,
        command: tuple[str, str],
        folder: Path,
        num_cpus: int,
        environment: Mapping[str, str],
        place: Place = HERE,
    ) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        agent_port, metrics_port = free_ports(2)
        self.metrics_url = f"http://{place.host}:{metrics_port}/metrics"
        ray, address = command
        arguments = [
            *place.prefix,
            *(ray, "start", f"--address={address}", "--block", f"--num-cpus={num_cpus}"),
            *(
                f"--temp-dir={folder}",
                f"--node-ip-address={place.host}",
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                NO_LOG_MONITOR,
            ),
            *(f"--dashboard-agent-listen-port={agent_port}", "--disable-usage-stats"),
            f"--metrics-export-port={metrics_port}",
        ]
        log = folder / "ray.log"
        places = dict.fromkeys(("TMPDIR", "XDG_CACHE_HOME"), str(self.temporary))
        self._process = LocalProcess(arguments, log, {**environment, **places})
        is_up = self._process.is_ready_by(
            time.monotonic() + START_S, lambda: IS_UP in log.read_text(errors="replace")
        )
        if not is_up:
            lines = self._process.last_log_lines()
            self.stop()
            raise LocalNodeError(f"the node did not start:\n{lines}")
        self.raylet = self._find_raylet()
        (self.node_id,) = (
            text.removeprefix("--node_id=")
            for text in self.raylet.cmdline()
            if text.startswith("--node_id=")
        )

    def _find_raylet(self) -> psutil.Process:
        for process in psutil.Process(self._process.pid).children():
            if process.cmdline() and process.cmdline()[0].endswith("/raylet"):
                return process
        self.stop()
        raise LocalNodeError("the node did not start a raylet")

    @property
    def is_alive(self) -> bool:
        return self.raylet.is_running() and self.raylet.status() != psutil.STATUS_ZOMBIE

    def actors(self, class_name: str) -> list[psutil.Process]:
        """Return the processes of its actors of one class."""
        found: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self.raylet.children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if process.cmdline() and process.cmdline()[0].startswith(f"ray::{class_name}"):
                        found.append(process)
        return found

    def kill(self) -> None:
        """Kill the raylet, like the loss of a machine. Its workers end within a few seconds."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.raylet.kill()
        self._process.wait()

    def cut_power(self) -> None:
        """Kill every process of the node at once, like a power cut."""
        for process in processes_naming(self.folder):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the node's own processes in good order. May be called again.

        Its workers are not in the process group; they end when their raylet does. `LocalRay.stop`
        ends any that are left.
        """
        self._process.end(STOP_WAIT_S)
