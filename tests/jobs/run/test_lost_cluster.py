"""A run whose Ray cluster dies: it says so, releases its output and ends before Ray ends it."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest

from jobs.cli.pattern.command import EXIT_STOPPED
from jobs.cluster.cluster_watch import RAY_LIMIT
from jobs.overview.output_status import read_output_status
from jobs.records.lease_record import current_lease
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.webhook import WebhookServer, served
from tests.jobs.run.test_run import REPOSITORY, write

DRIVER = """
import sys
from jobs.cli.main import main
from tests.fakes.model import FakeLoader
sys.exit(main(sys.argv[1:], loader=FakeLoader()))
"""
RAY_LIMIT_S = 12  # Ray's minute, shorter: the run ends after 9 s


@contextlib.contextmanager
def started_driver(folder: Path) -> "Generator[subprocess.Popen[str]]":
    """Start a run of one clip that never ends, on a Ray cluster of its own."""
    prompt = f"wait {folder / 'never'}"
    row: dict[str, object] = {"prompt": prompt, "text": "truncate", "num_inference_steps": 1}
    manifest = write(folder, [row])
    with subprocess.Popen(
        [
            *(sys.executable, "-c", DRIVER, "render", str(manifest), "--model", "shapes-wan"),
            *("--output", (folder / "out").as_uri(), "stall.heartbeat_interval_s=0.5"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, RAY_LIMIT: str(RAY_LIMIT_S), "RAY_ADDRESS": "local"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raylet", "no node of the Ray cluster has been alive for"),
        pytest.param(
            "gcs_server",
            "the control service of the Ray cluster has not answered for",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_whose_cluster_dies_ends_with_the_reason_and_releases_its_output(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(WebhookServer()) as webhook:
        monkeypatch.setenv("NAGFARM_WEBHOOK_URL", webhook.url)
        lose_cluster(name, reason, tmp_path)
    assert [body["event"] for body in webhook.bodies] == ["started", "stopped"]
    assert webhook.bodies[-1]["summary"]["stop"]["error_type"] == "ClusterLostError"


def lose_cluster(name: str, reason: str, tmp_path: Path) -> None:
    with started_driver(tmp_path) as driver:
        assert driver.stdout is not None
        printed = ""
        while "is ready on" not in printed:
            line = driver.stdout.readline()
            assert line, printed
            printed += line
        children = {
            child: child.cmdline()[0]
            for child in psutil.Process(driver.pid).children(recursive=True)
            if child.cmdline()
        }
        (process,) = (child for child, text in children.items() if text.endswith(f"/{name}"))
        process.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        printed += driver.communicate(timeout=120)[0]
        took_s = time.monotonic() - killed
    assert driver.returncode == EXIT_STOPPED, printed
    assert f"nagfarm: stopped: {reason}" in printed
    assert "Traceback" not in printed
    assert took_s < 60
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    run = read_output_status(store).run
    assert run is not None
    assert run.stop is not None
    assert run.stop.error_type == "ClusterLostError"
    assert reason in run.stop.message
    lease = current_lease(store)
    assert lease is None or lease.is_released
    # Ray's agents end by themselves, minutes later.
    renderers = [child for child, text in children.items() if "ray::RenderActor" in text]
    assert renderers
    _, alive = psutil.wait_procs(renderers, timeout=30)
    assert alive == []
