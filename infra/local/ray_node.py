"""A further node of a local Ray cluster: a second `ray start` on this machine, with a raylet of its own.

Decides how it is started, which processes are its own, and how it is lost. It has a folder below the cluster's, so
that what ends the cluster's processes ends its too. Its workers keep temporary files, the spool among them, in a
folder of its own, as on a machine of its own.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from infra.local.s3_server import free_ports

POLL_S = 0.1
STOP_WAIT_S = 2.0  # there is nothing to be put in order
OBJECT_STORE_BYTES = 100_000_000  # videos never go through it
IS_UP = "Ray runtime started"  # what `ray start` prints once the cluster knows the node


class LocalNodeError(Exception):
    """The node could not be started."""


class LocalNode:
    """One node, running from the making of this object to `stop` or `kill`.

    Args:
        command: the `ray` program and the address of the cluster that it joins.
        folder: its own, below the cluster's, which names its processes; not there yet.
        num_cpus: that it believes to have.
        environment: its workers'.
        deadline_s: how long the start may take.
    """

    def __init__(
        self,
        command: tuple[str, str],
        folder: Path,
        num_cpus: int,
        environment: Mapping[str, str],
        deadline_s: float,
    ) -> None:
        self.folder = folder
        self.temporary = folder / "tmp"
        self.temporary.mkdir(parents=True)
        (agent_port,) = free_ports(1)
        ray, address = command
        arguments = [
            *(
                ray,
                "start",
                f"--address={address}",
                "--block",
                f"--num-cpus={num_cpus}",
                f"--temp-dir={folder}",
            ),
            *(
                f"--object-store-memory={OBJECT_STORE_BYTES}",
                f"--dashboard-agent-listen-port={agent_port}",
            ),
            "--disable-usage-stats",
        ]
        log = folder / "ray.log"
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env={**environment, "TMPDIR": str(self.temporary)},
                start_new_session=True,
            )
        deadline = time.monotonic() + deadline_s
        while IS_UP not in log.read_text(errors="replace"):
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").splitlines()[-15:]
                self.stop()
                raise LocalNodeError("the node did not start:\n" + "\n".join(lines))
            time.sleep(POLL_S)
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
        raise LocalNodeError("the node has started no raylet")

    @property
    def is_alive(self) -> bool:
        return self.raylet.is_running() and self.raylet.status() != psutil.STATUS_ZOMBIE

    def actors(self, class_name: str) -> list[psutil.Process]:
        """The processes of its actors of one class."""
        found: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in self.raylet.children():
                with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                    if process.cmdline() and process.cmdline()[0].startswith(f"ray::{class_name}"):
                        found.append(process)
        return found

    def kill(self) -> None:
        """Kills the raylet, as a machine is lost. Its workers see it and end within a few seconds."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.raylet.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends the node's own processes in good order; what is left of them `LocalRay.stop` ends. May be called again.

        Workers are not the group's; they end when their raylet does.
        """
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_WAIT_S)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
