"""Runs on real clusters: two that share one, one that grows on demand, and nodes of two kinds.

A driver is a process, as for users; each clip waits for a file of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.local.ray_cluster import NO_METRICS, LocalRay
from jobs.cli.pattern.command import EXIT_OK
from jobs.overview.output_status import read_output_status
from jobs.records.commit import committed_ids, read_record
from jobs.records.run_status import RunStatus
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.manifests import jsonl
from tests.jobs.run.test_driver import DEADLINE_S, DRIVER, REPOSITORY

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class GatedRun:
    """A run whose clips each wait for a file: its gate."""

    cluster: LocalRay
    folder: Path
    num_clips: int

    def __post_init__(self) -> None:
        self.folder.mkdir()
        rows = [
            {"prompt": f"wait {number} {self._gate(f'clip-{number}')}", "name": f"clip-{number}"}
            for number in range(self.num_clips)
        ]
        (self.folder / "clips.jsonl").write_text(jsonl({**row, "text": "truncate"} for row in rows))

    def _gate(self, name: str) -> Path:
        return self.folder / f"gate-{name}"

    @contextmanager
    def started(self, *settings: str) -> Generator["GatedRun"]:
        command = [sys.executable, "-c", DRIVER, "render", str(self.folder / "clips.jsonl")]
        command += ["--model=shapes-wan", f"--output={(self.folder / 'out').as_uri()}"]
        self.driver = subprocess.Popen(
            [*command, "store.lease_s=3", *settings],
            cwd=REPOSITORY,
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield self
        finally:
            self.driver.kill()
            self.driver.communicate()

    def open(self, *names: str) -> None:
        for name in names or [f"clip-{number}" for number in range(self.num_clips)]:
            self._gate(name).touch()

    def status(self) -> RunStatus | None:
        return read_output_status(open_store((self.folder / "out").as_uri(), StoreConfig())).run

    def when(self, is_seen: Callable[[RunStatus], bool]) -> RunStatus:
        """Wait for a status of the run, and return it."""
        deadline = time.monotonic() + DEADLINE_S
        while (run := self.status()) is None or not is_seen(run):
            assert self.driver.poll() is None, self.driver.communicate()
            assert time.monotonic() < deadline, run
            time.sleep(0.1)
        return run

    def computing(self) -> list[str]:
        """Return the names of the clips whose gates workers wait for."""
        run = self.status()
        return [clip.name for clip in run.in_flight if clip.stage == "denoise"] if run else []

    def finish(self) -> str:
        """Open all gates, wait for the end of the run, and return its log."""
        self.open()
        printed, errors = self.driver.communicate(timeout=DEADLINE_S)
        assert self.driver.returncode == EXIT_OK, printed + errors
        run = self.status()
        assert run is not None
        assert (run.num_committed, run.num_failures, run.num_workers_lost) == (self.num_clips, 0, 0)
        return printed


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {**NO_METRICS, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def test_a_run_gives_a_worker_to_another_run_after_its_clip_and_has_it_back_at_the_end(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    token_path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    with LocalRay(3, environment, token_path, has_dashboard=False) as cluster:
        night, trial = (
            GatedRun(cluster, tmp_path / "night", 60),
            GatedRun(cluster, tmp_path / "trial", 6),
        )
        with night.started("workers.weight=2"):
            night.when(lambda run: run.num_workers == 3 and len(run.in_flight) == 9)
            with trial.started():
                trial.when(lambda run: run.waiting_for is not None)
                deadline = time.monotonic() + DEADLINE_S
                while (run := night.status()) is None or run.num_workers == 3:
                    assert time.monotonic() < deadline
                    night.open(*night.computing())  # one clip after another, on each worker
                    time.sleep(0.5)
                assert run.num_workers == 2
                assert trial.when(lambda run: run.num_workers > 0).num_workers == 1
                assert night.when(lambda run: True).num_workers == 2
                trial_log = trial.finish()
            night.when(lambda run: run.num_workers == 3)
            night_log = night.finish()
    told = "sharing the cluster with 1 other run (workers.share)"
    assert told in trial_log
    assert told in night_log
    assert "no other run shares the cluster any more" in night_log
    assert night_log.count(": its place is for another run (workers.share)") == 1
    assert "gave back" not in trial_log


def wait_for_raylets(cluster: LocalRay, number: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (found := sum(one.name() == "raylet" for one in cluster.processes())) != number:
        assert time.monotonic() < deadline, f"{found} raylets, not {number}"
        time.sleep(0.5)


def test_clips_ask_an_autoscaler_for_nodes_up_to_the_count_and_idle_ones_are_given_back(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    small = {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 4}
    token_path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    with LocalRay(
        0, environment, token_path, has_dashboard=False, node_types={"small": small}
    ) as cluster:
        run = GatedRun(cluster, tmp_path / "run", 3)
        with run.started("workers.count=2", "workers.spool_clips=1"):
            run.when(lambda status: status.num_workers == 2)
            wait_for_raylets(cluster, 3)  # two besides the head; one that is too many ends again
            run.open("clip-0", "clip-1")
            run.when(lambda status: status.num_workers == 1)
            wait_for_raylets(cluster, 2)
            status = run.status()
            assert status is not None
            assert (status.state, status.num_committed) == ("rendering", 2)
            run.finish()


def test_a_model_waits_for_a_node_of_its_kind_and_two_of_its_workers_share_the_gpu(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    token_path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    of_kind = {
        "RAY_OVERRIDE_LABELS": json.dumps({"ray.io/accelerator-type": "H100"}),
        "RAY_OVERRIDE_RESOURCES": json.dumps({"GPU": 1}),
    }
    with LocalRay(2, environment, token_path, has_dashboard=False) as cluster:
        run = GatedRun(cluster, tmp_path / "run", 6)
        pinned = "workers.models[shapes-wan]={accelerator_type: H100, num_gpus: 0.5}"
        with run.started(pinned):
            waiting = run.when(lambda status: status.waiting_for is not None)
            assert waiting.waiting_for is not None
            assert waiting.waiting_for.startswith(
                "1 device: a worker needs 0.5 GPUs and 1 CPU on a node with "
                "ray.io/accelerator-type=H100, and none of the cluster's nodes is such a node"
            )
            cluster.add_node(4, environment=of_kind)
            run.when(lambda status: status.num_workers == 2)
            run.finish()
        output = open_store((run.folder / "out").as_uri(), StoreConfig())
        nodes = {read_record(output, one).worker.node_id for one in committed_ids(output)}
    assert len(nodes) == 1, "not on the head, which has free CPUs"
