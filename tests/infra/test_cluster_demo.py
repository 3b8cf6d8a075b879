"""The cluster demo in a small form: machines leave and join, and each clip is committed once."""

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local.local_process import processes_naming
from tests.infra.test_private_network import needs_networks

ROOT = Path(__file__).parents[2]
NUM_CLIPS = 90
CUT_S = 30.0
pytestmark = [pytest.mark.slow, pytest.mark.cluster, needs_networks]


@pytest.fixture
def temporary() -> Iterator[Path]:
    """Return a folder for the demo's temporary files; its path is short, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="nf-") as folder:
        yield Path(folder)


def start(temporary: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [
            *("env", f"TMPDIR={temporary}", sys.executable, "-m", "infra.local.cluster_demo"),
            *options,
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def outer_world() -> tuple[list[str], str, str]:
    """Return what a demo could leave behind: names of namespaces, links and mounts."""
    names = Path("/run/netns")
    found = sorted(path.name for path in names.iterdir()) if names.exists() else []
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True)
    return found, links.stdout, Path("/proc/self/mounts").read_text()


def left_in(temporary: Path) -> list[str]:
    """Return the files and processes that name the folder."""
    processes: list[str] = []
    for process in processes_naming(temporary):
        with contextlib.suppress(psutil.NoSuchProcess):
            processes.append(f"{process.name()} {process.pid}")
    return processes + [path.name for path in temporary.iterdir()]


@pytest.mark.timeout(1200)
def test_a_cluster_that_loses_and_gets_machines_commits_every_clip_once(
    temporary: Path, tmp_path: Path
) -> None:
    before, report_path = outer_world(), tmp_path / "report.json"
    demo = start(
        temporary,
        f"--clips={NUM_CLIPS}",
        f"--cut-s={CUT_S:g}",
        f"--report={report_path}",
    )
    printed, _ = demo.communicate()
    print(printed)
    assert demo.returncode == 0
    report: dict[str, Any] = json.loads(report_path.read_text())
    at_s = {moment["title"]: moment["at_s"] for moment in report["moments"]}
    clips = report["clips"]

    assert len({clip["name"] for clip in clips}) == NUM_CLIPS
    assert sorted(report["writes"].values()) == [1] * NUM_CLIPS

    # A worker that is cut off renders on, and may commit its clips after all once it is back.
    moves = {(move["source"], move["target"]) for move in report["moves"]}
    assert {"node-a", "node-b"} <= {source for source, _ in moves}, (
        "clips were taken away from both"
    )
    assert ("node-b", "node-b") not in moves
    cut = [
        clip["node"]
        for clip in clips
        if at_s["node-a loses its network"] + 1 < clip["committed_at_s"] < at_s["node-a is back"]
    ]
    assert set(cut) == {"node-b"}

    def began(node: str, after: str) -> int:
        return sum(clip["node"] == node and clip["started_at_s"] > at_s[after] for clip in clips)

    assert began("node-a", "node-a is back") > 0
    assert began("node-c", "node-c joins") > 0
    assert began("node-b", "node-b loses its power") == 0

    for text in (
        "weights on node-a, node-b: shapes-wan: /",
        "0 findings",
        "ray_node_cpu_utilization",
        "all of it",
    ):
        assert text in printed
    assert outer_world() == before
    assert left_in(temporary) == []


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    before = outer_world()
    demo = start(temporary)
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("--- the batch begins"):
            break
    demo.send_signal(number)
    printed, _ = demo.communicate()
    assert demo.returncode == 130, printed
    assert "nothing is left running" in printed
    assert outer_world() == before
    assert left_in(temporary) == []
