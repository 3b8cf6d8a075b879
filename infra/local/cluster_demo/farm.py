"""The farm of the cluster demo: S3 and each Ray node on a machine of its own, and one job.

Decides what the batch is, how the job is submitted, and what its records say while it runs.
"""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.cluster_demo.network import Network
from infra.local.local_process import POLL_S, Place
from infra.local.ray_cluster import LocalRay, ray_command
from infra.local.ray_node import LocalNode, LocalNodeError
from infra.local.s3_server import LocalS3
from infra.local.s3_versions import count_writes, enable_versions
from jobs.records.commit import read_record
from jobs.records.keys import list_keys
from jobs.records.schema import ClipRecord, FailureRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.store.uri import S3Location

BUCKET = "renders"
LOCATION = S3Location(BUCKET, "cluster-demo")
URI = str(LOCATION)
MANIFEST = "cluster-demo.yaml"
NODE_CPUS = 1  # a worker each
COLOURS = ("", "red", "blue", "green")
# A node that is cut off shall lose its clips within seconds; the default is a minute.
SETTINGS = ("stall.heartbeat_interval_s=1", "stall.heartbeat_timeout_s=8", "workers.drain_s=5")
RAY_SETTINGS = {"RAY_metrics_report_interval_ms": "2000"}  # the metrics are printed at the end


class JobEndedError(Exception):
    """The job has ended before all of its faults."""


@dataclass
class Farm:
    """The servers, the nodes and the records of one output.

    Args:
        folder: the job's working folder, with the manifest.
        places: machines by name; each has one of the `nodes`.
        records: the committed clips that were read so far, by id.
    """

    network: Network
    cluster: LocalRay
    server: LocalS3
    folder: Path
    store: Store
    places: dict[str, Place] = field(default_factory=dict[str, Place])
    nodes: dict[str, LocalNode] = field(default_factory=dict[str, LocalNode])
    records: dict[str, ClipRecord] = field(default_factory=dict[str, ClipRecord])

    def add_node(self, name: str) -> None:
        """Start a node that renders, on a new machine or on one that had a node before."""
        if name not in self.places:
            self.places[name] = self.network.add(name)
        for is_last in (False, False, True):  # Ray allows a start 30 s, few on a busy machine
            try:
                self.nodes[name] = self.cluster.add_node(NODE_CPUS, self.places[name])
            except LocalNodeError:
                if is_last:
                    raise
            else:
                return

    def restart_if_ended(self, name: str) -> None:
        """Start a node again whose `ray start` has ended, as its service manager does.

        Ray counts a node that it cannot reach as dead, and ends it once it can. Seen with ray 2.60.
        """
        if not self.nodes[name].is_alive:
            self.nodes[name].stop()
            self.add_node(name)

    def committed_by(self, name: str, after: float = 0.0) -> int:
        """Return how many clips that began after a moment a node has committed."""
        self.read_records()
        return sum(
            record.worker.host == name and record.timings[0].started_at > after
            for record in self.records.values()
        )

    def read_records(self) -> None:
        """Read the records that were written since the last time."""
        for parsed in list_keys(self.store, "record"):
            if parsed.clip_id not in self.records:
                self.records[parsed.clip_id] = read_record(self.store, parsed.clip_id)

    def failures(self) -> list[FailureRecord]:
        """Return all failed attempts, oldest first."""
        keys = [parsed.key for parsed in list_keys(self.store, "failure")]
        found = [FailureRecord.from_json(self.store.get(key)) for key in keys]
        return sorted(found, key=lambda failure: failure.failed_at)

    def writes(self) -> dict[str, int]:
        """Return how often each record was written, by its key."""
        return count_writes(self.server.endpoint_url, LOCATION)

    def submission(self, *words: str) -> list[str]:
        """Return the command that submits a job of these words, and show it."""
        command = [
            *(ray_command(), "job", "submit", f"--address={self.cluster.dashboard_url}"),
            *(f"--working-dir={self.folder}", "--", "nagfarm", *words),
        ]
        print(f"$ RAY_AUTH_MODE=token ray {' '.join(command[1:])}", flush=True)
        return command

    def check_nodes(self) -> int:
        """Check every node by `nagfarm doctor --cluster`, show its words, return its exit code."""
        command = self.submission("doctor", "--cluster", "--manifest", MANIFEST, "--output", URI)
        return subprocess.run(command, env=self.cluster.environment(), check=False).returncode

    def verify(self) -> int:
        """Audit the output by `nagfarm verify`, show its words, and return its exit code."""
        command = ["nagfarm", "verify", URI, f"--manifest={self.folder / MANIFEST}", "--decode"]
        print(f"$ {' '.join(command)}", flush=True)
        return subprocess.run(command, env=self.cluster.environment(), check=False).returncode


@contextlib.contextmanager
def started(network: Network, names: tuple[str, ...]) -> Generator[Farm]:
    """Start the servers and the nodes of these names; end them, and remove their folder."""
    with (
        tempfile.TemporaryDirectory(prefix="nf-", ignore_cleanup_errors=True) as temporary,
        LocalS3(BUCKET, place=network.add("s3")) as server,
    ):
        os.environ.update(server.environment())  # for boto3 in this process
        enable_versions(server.endpoint_url, BUCKET)
        # Processes that are killed leave temporary files behind.
        variables = {**server.environment(), **RAY_SETTINGS, "TMPDIR": temporary}
        with LocalRay(0, variables, place=network.add("head")) as cluster:
            folder = cluster.folder / "job"
            folder.mkdir()
            store = open_store(URI, StoreConfig())
            farm = Farm(network, cluster, server, folder, store)
            for name in names:
                farm.add_node(name)
            yield farm


def write_manifest(path: Path, num_clips: int, num_steps: int) -> None:
    """Write a batch of the packaged model, in YAML's JSON form."""
    rows = [
        {
            "prompt": f"a {('circle', 'square', 'triangle')[seed % 3]} moving right",
            "negative_prompt": COLOURS[seed % len(COLOURS)],
            "seed": seed,
        }
        for seed in range(num_clips)
    ]
    defaults = {"num_inference_steps": num_steps}
    manifest = {"name": path.stem, "model": "shapes-wan", "defaults": defaults, "clips": rows}
    path.write_text(json.dumps(manifest, indent=1))


class Job:
    """The run, started by `ray job submit` from a machine that is not a node.

    It shows its log on this process's own output.
    """

    def __init__(self, farm: Farm) -> None:
        command = farm.submission("render", MANIFEST, "--output", URI, *SETTINGS)
        self._process = subprocess.Popen(command, env=farm.cluster.environment())

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        return self._process.wait()

    def end(self) -> None:
        """End the client; the cluster's end ends the run."""
        self._process.terminate()
        self._process.wait()

    def wait_until(self, has_happened: Callable[[], bool], what: str, limit_s: float) -> None:
        """Wait while the job runs.

        Raises:
            JobEndedError: it ended before, or it took longer than `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        while not has_happened():
            if not self.is_running:
                raise JobEndedError(f"the job ended before {what}: give it more --clips")
            if time.monotonic() > deadline:
                raise JobEndedError(f"{what}: not within {limit_s:g} s")
            time.sleep(POLL_S)
