"""A farm on this machine: a real S3 server behind the faulty proxy, a Ray cluster, and drivers.

One farm serves many scenarios, each with an output of its own. Drivers and workers reach S3 through
the proxy; the audit goes around it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import psutil

from infra.local.control_service import KEPT
from infra.local.faulty_proxy import FaultyProxy
from infra.local.local_process import LocalProcess
from infra.local.ray_cluster import NO_METRICS, LocalRay
from infra.local.ray_node import LocalNode
from infra.local.s3_server import LocalS3
from infra.local.s3_versions import count_writes, enable_versions
from jobs.records.keys import PREFIXES
from jobs.settings.run_config import StoreConfig
from jobs.store.s3_store import S3Store
from jobs.store.store import Store, open_store
from tests.chaos.harness.share import Share
from tests.chaos.harness.workload import Workload, write_models

REPOSITORY = Path(__file__).parents[3]
BUCKET = "chaos"
NODE_CPUS = 2  # each node has room for all actors of a scenario, so that one node may be lost
NUM_NODES = 2
DISK_BYTES = 16 * 1024**2  # size of each node's small disk, if root can mount one
POLL_S = 0.1
ACTORS = tuple(
    f"ray::{name}" for name in ("RenderActor", "GroupActor", "LeaderActor", "FollowerActor")
)
ORPHAN_WAIT_S = 20.0  # Ray kills after 5 s a process that does not end, and is not always prompt
SETTINGS = (
    "workers.count=2",
    "workers.drain_s=5",
    "stall.heartbeat_interval_s=0.5",
    "stall.heartbeat_timeout_s=10",
    "stall.first_s=30",
    "stall.min_s=8",
    "retry.back_off_s=0.5",
    "retry.max_back_off_s=4",
    "encoding.preset=ultrafast",
    "store.connect_timeout_s=2",
    "store.read_timeout_s=10",
    "store.max_attempts=4",
)  # the defaults with shorter times


class Driver(LocalProcess):
    """The process of one driver. Signals go to it alone, not to its process group."""

    @property
    def exit_code(self) -> int | None:
        """Return the exit code, or None while the driver runs."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def ends_within(self, seconds: float) -> bool:
        """Wait for the driver's end; return False if it still runs after `seconds`."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """Kill the driver, even if it is stopped."""
        self._process.kill()
        self._process.wait()


class PipedDriver(Driver):
    """A driver whose log goes through a pipe to a reader, which may end before it."""

    def __init__(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path
    ) -> None:
        pipe = log.with_suffix(".pipe")
        os.mkfifo(pipe)
        with log.open("ab") as file:
            self.reader = subprocess.Popen(["/bin/cat", str(pipe)], stdout=file)
        super().__init__(command, pipe, environment, folder)
        self._log = log


class Farm:
    """The servers and nodes of the farm, running between `start` and `stop` or inside a `with`.

    Args:
        folder: folder for manifests and logs.
        seed: seed of the proxy's random choices.
        num_nodes: number of nodes in addition to the head, which renders no clips.
        node_cpus: CPUs of each node.
    """

    def __init__(
        self, folder: Path, seed: int = 0, num_nodes: int = NUM_NODES, node_cpus: int = NODE_CPUS
    ) -> None:
        self.folder = folder
        self._seed = seed
        self._num_nodes = num_nodes
        self._node_cpus = node_cpus
        self._parts = contextlib.ExitStack()
        self._disks = contextlib.ExitStack()
        self.nodes: list[LocalNode] = []

    def start(self) -> None:
        with contextlib.ExitStack() as parts:
            self.server = parts.enter_context(LocalS3(BUCKET))
            parts.enter_context(environment(self.server.environment()))  # for boto3 in this process
            enable_versions(self.server.endpoint_url, BUCKET)
            self.proxy = parts.enter_context(FaultyProxy(self.server.endpoint_url, self._seed))
            variables = {**self.server.environment(), **KEPT, **NO_METRICS}
            self.cluster = parts.enter_context(LocalRay(0, variables, has_dashboard=False))
            self.models = write_models(self.folder / "models")
            self.logs = self.folder / "logs"
            self.logs.mkdir(exist_ok=True)
            if os.geteuid() == 0:
                parts.enter_context(small_disk(self.logs))
            parts.push(self._disks)
            self.restore_nodes()
            self._parts = parts.pop_all()

    def stop(self) -> None:
        self._parts.close()
        self.nodes.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def restore_nodes(self) -> None:
        """Start a node for each one that was lost; without its head, start the cluster anew."""
        if not self.cluster.is_alive:
            self._disks.close()
            self.cluster.stop()
            self.cluster.start()
        self.nodes = [node for node in self.nodes if node.is_alive]
        while len(self.nodes) < self._num_nodes:
            node = self.cluster.add_node(self._node_cpus)
            self.nodes.append(node)
            if os.geteuid() == 0:
                self._disks.enter_context(small_disk(node.temporary))

    @cached_property
    def share(self) -> Share:
        """A share that all nodes see. Needs root."""
        return self._disks.enter_context(Share(self.folder))

    def output(self, prefix: str, *, is_on_share: bool = False) -> str:
        """Return the URI of an output, on S3 or on the share."""
        return (self.share.path / prefix).as_uri() if is_on_share else f"s3://{BUCKET}/{prefix}"

    def store(self, output: str) -> Store:
        """Return the store of an output, past the proxy."""
        return open_store(output, StoreConfig(endpoint_url=self.server.endpoint_url))

    def writes(self, store: Store) -> dict[str, int]:
        """Return how often each record was written; a folder does not remember more than once."""
        if isinstance(store, S3Store):
            return count_writes(self.server.endpoint_url, store.location)
        return dict.fromkeys(store.keys(PREFIXES["record"]), 1)

    def start_driver(
        self,
        workload: Workload,
        manifest: Path,
        output: str,
        options: Sequence[str],
        kind: type[Driver] = Driver,
    ) -> Driver:
        """Start the real driver on a manifest, with the loader of the workload's family."""
        command = [
            *(
                "/usr/bin/env",
                "--default-signal=HUP",  # the suite itself may run under nohup
                sys.executable,
                "-m",
                "tests.chaos.harness.driver",
                workload.family,
                workload.loader_argument,
                "render",
            ),
            *(
                str(manifest),
                f"--models={self.models}",
                f"--model={workload.model}",
                f"--output={output}",
            ),
            *(*SETTINGS, f"store.endpoint_url={self.proxy.endpoint_url}", *options),
        ]
        return kind(
            command,
            self.logs / f"{manifest.stem}.log",
            {
                **self.cluster.environment(),
                "RAY_ADDRESS": self.cluster.address,
                "PYTHONUNBUFFERED": "1",
            },
            REPOSITORY,
        )

    def collect_garbage(
        self, output: str, clock_error_s: float
    ) -> subprocess.CompletedProcess[str]:
        """Run `nagfarm gc --delete` on an output, past the proxy, by a wrong clock."""
        return subprocess.run(
            [
                *(sys.executable, "-m", "tests.chaos.harness.driver", "clock", str(clock_error_s)),
                *("gc", output, "--delete"),
                f"store.endpoint_url={self.server.endpoint_url}",
            ],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def actors(self) -> list[psutil.Process]:
        """Return the processes that render."""
        return [process for node in self.nodes for process in node.actors("RenderActor")]

    def orphans(self) -> list[str]:
        """Return the actors and ffmpegs that still run after they had time to end."""
        deadline = time.monotonic() + ORPHAN_WAIT_S
        while (found := list(self._workers_and_ffmpegs())) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found

    def _workers_and_ffmpegs(self) -> list[str]:
        found: list[str] = []
        for process in self.cluster.processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                name = (process.cmdline() or [""])[0]
                if name.startswith(ACTORS) or "ffmpeg" in Path(name).name:
                    found.append(f"{name} ({process.pid}, {process.status()})")
        return found


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Generator[None]:
    """Set environment variables of this process, and restore the old ones at the end."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def small_disk(folder: Path) -> Generator[None]:
    """Mount a tmpfs over a folder, as a small disk that can be filled. Needs root."""
    subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)
