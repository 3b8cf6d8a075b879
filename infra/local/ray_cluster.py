"""A real Ray cluster on this machine, for the demo and the tests: `ray start --head`, with dashboard and token.

Decides how it is started, when it is ready and how it is stopped. It has ports, a session folder and a token of its
own, so that it neither meets nor disturbs another cluster on the machine. What names the session folder is its own.
What a further node is, is for `ray_node`.
"""

import atexit
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import psutil

from infra.local.ray_node import LocalNode
from infra.local.s3_server import HOST, free_ports

POLL_S = 0.1
STOP_WAIT_S = 5.0


class LocalRayError(Exception):
    """The cluster could not be started."""


class LocalRay:
    """One cluster, running between `start` and `stop` or inside a `with`: its head, and the nodes that are added.

    Args:
        num_cpus: that the head believes to have; with 0 it renders nothing.
        environment: variables that its workers see, besides this process's own; credentials of a store belong here.
        token_path: a file with the token that clients have to show; None makes one. A process that is to be a driver
            itself needs its own beforehand, since ray reads its settings when it is imported.
        deadline_s: how long the start may take.
    """

    def __init__(
        self,
        num_cpus: int,
        environment: Mapping[str, str],
        token_path: Path | None = None,
        deadline_s: float = 120.0,
    ) -> None:
        self._num_cpus = num_cpus
        self._given_token_path = token_path
        self._extra = dict(environment)
        self._deadline_s = deadline_s
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._num_nodes = 0  # that were ever added
        self._nodes: list[LocalNode] = []
        self.address = ""
        self.dashboard_url = ""
        self._agent_url = ""

    @property
    def folder(self) -> Path:
        """The session folder; its path is short, because sockets lie in it."""
        assert self._folder is not None, "the cluster was not started"
        return self._folder

    @property
    def token_path(self) -> Path:
        return self._given_token_path or self.folder / "token"

    def environment(self) -> dict[str, str]:
        """What a client of this cluster, such as `ray job submit`, has to have in its environment."""
        scripts = sysconfig.get_path("scripts")
        return {
            **os.environ,
            **self._extra,
            "PATH": os.pathsep.join([scripts, os.environ.get("PATH", "")]),
            "RAY_ADDRESS": self.dashboard_url,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token_path),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def start(self) -> None:
        """Starts the cluster and waits until its dashboard takes jobs.

        Raises:
            LocalRayError: it was not ready by the deadline; with its log's end.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="nf-"))
        atexit.register(self.stop)
        if self._given_token_path is None:
            write_token(self.token_path)
        port, dashboard_port, client_port, agent_port = free_ports(4)
        self.address, self.dashboard_url = f"{HOST}:{port}", f"http://{HOST}:{dashboard_port}"
        self._agent_url = f"http://{HOST}:{agent_port}"
        command = [
            *(
                ray_command(),
                "start",
                "--head",
                "--block",
                f"--port={port}",
                f"--node-ip-address={HOST}",
            ),
            *(
                f"--dashboard-host={HOST}",
                f"--dashboard-port={dashboard_port}",
                "--include-dashboard=true",
            ),
            *(
                f"--ray-client-server-port={client_port}",
                f"--num-cpus={self._num_cpus}",
                f"--temp-dir={self._folder}",
            ),
            *(f"--dashboard-agent-listen-port={agent_port}", "--disable-usage-stats"),
        ]
        environment = {
            name: value for name, value in self.environment().items() if name != "RAY_ADDRESS"
        }
        with (self._folder / "ray.log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + self._deadline_s
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                lines = (self._folder / "ray.log").read_text(errors="replace").splitlines()[-15:]
                self.stop()
                raise LocalRayError("Ray did not start:\n" + "\n".join(lines))
            time.sleep(POLL_S)

    def add_node(self, num_cpus: int) -> LocalNode:
        """Starts a further node of this machine and waits until the cluster knows it.

        Raises:
            LocalNodeError: it was not ready by the deadline; with its log's end.
        """
        self._num_nodes += 1
        environment = {
            name: value for name, value in self.environment().items() if name != "RAY_ADDRESS"
        }
        node = LocalNode(
            (ray_command(), self.address),
            self.folder / f"n{self._num_nodes}",
            num_cpus,
            environment,
            self._deadline_s,
        )
        self._nodes.append(node)
        return node

    def _is_ready(self) -> bool:
        """The dashboard answers, and the agent that starts jobs: on a busy machine it is up many seconds later."""
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

    def processes(self) -> list[psutil.Process]:
        """Everything that belongs to the cluster and is alive."""
        return list(_processes_naming(str(self._folder))) if self._folder else []

    def stop(self) -> None:
        """Ends every process of the cluster, by force if asking does not help. May be called again."""
        if self._folder is None:
            return
        for node in self._nodes:
            node.stop()
        self._nodes.clear()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
        _, alive = psutil.wait_procs(self.processes(), timeout=STOP_WAIT_S)
        while alive:
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(alive, timeout=STOP_WAIT_S)
            alive = self.processes()  # one may have started another meanwhile
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
    """A new token, in a file that only its owner can read."""
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))


def ray_command() -> str:
    """The `ray` program of this Python's environment."""
    found = shutil.which("ray", path=sysconfig.get_path("scripts")) or shutil.which("ray")
    if found is None:
        raise LocalRayError(
            f"the program `ray` is missing: {sys.executable} -m pip install 'ray[default]'"
        )
    return found


def _processes_naming(folder: str) -> Iterator[psutil.Process]:
    """Processes whose command line or environment names the folder; a worker's command line is only `ray::...`."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            if any(folder in text for text in (*process.cmdline(), *process.environ().values())):
                yield process
