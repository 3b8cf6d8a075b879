"""Runs whose workers wait for a place: other jobs hold it, no node has it, or the driver does.

A driver is a process, as for users; its clips wait for the file `gate`.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from infra.local.ray_cluster import NO_METRICS, LocalRay, ray_command
from jobs.cli.pattern.command import EXIT_OK, EXIT_STOPPED
from jobs.records.run_status import RunStatus
from tests.jobs.run.test_driver import DEADLINE_S, Drivers

pytestmark = pytest.mark.cluster

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "logs.md").read_text()
LOAD_TIMEOUT_S = 15
QUICK = "store.lease_s=3"  # so that the status is written every second


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[LocalRay], Drivers]]:
    """Return a function that makes the drivers of a cluster."""
    made: list[Drivers] = []

    def make(cluster: LocalRay) -> Drivers:
        made.append(Drivers(cluster, tmp_path))
        return made[-1]

    yield make
    for drivers in made:
        for driver in drivers.started:
            driver.kill()
            driver.communicate()


def status_when(
    drivers: Drivers, driver: "subprocess.Popen[str]", is_seen: Callable[[RunStatus], bool]
) -> RunStatus:
    """Wait for a status of the run, and return it."""
    deadline = time.monotonic() + DEADLINE_S
    while (run := drivers.status().run) is None or not is_seen(run):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, run
        time.sleep(0.05)
    return run


@ray.remote(num_cpus=2)
class Holder:
    """Another job's actor, which holds the whole cluster."""

    def is_there(self) -> bool:
        return True


def test_devices_that_another_job_holds_are_waited_for_and_charged_to_nothing(
    ray_driver: LocalRay, start: Callable[[LocalRay], Drivers]
) -> None:
    holder: Any = Holder.remote()
    assert ray.get(holder.is_there.remote(), timeout=DEADLINE_S)
    drivers = start(ray_driver)
    drivers.gate.touch()
    driver = drivers.start("workers.count=null", f"workers.load_timeout_s={LOAD_TIMEOUT_S}", QUICK)
    waiting = status_when(drivers, driver, lambda run: run.waiting_for is not None)
    assert waiting.waiting_for == "2 devices, held by other jobs"
    status_when(drivers, driver, lambda run: run.elapsed_s > LOAD_TIMEOUT_S + 2)
    ray.kill(holder)
    printed, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == EXIT_OK, errors
    assert printed.count("Z waiting for 2 devices, held by other jobs\n") == 1
    run = drivers.status().run
    assert run is not None
    assert (run.state, run.num_committed, run.num_workers_lost) == ("finished", 6, 0)
    assert run.waiting_for is None


def test_a_cluster_that_starts_from_zero_nodes_is_waited_for_and_nodes_that_join_are_used(
    tmp_path: Path, start: Callable[[LocalRay], Drivers]
) -> None:
    token_path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    environment = {**NO_METRICS, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with LocalRay(0, environment, token_path, has_dashboard=False) as cluster:
        drivers = start(cluster)
        driver = drivers.start("workers.count=null", QUICK)
        status_when(drivers, driver, lambda run: run.waiting_for is not None)
        for num_workers in (1, 2):
            cluster.add_node(1)
            status_when(drivers, driver, lambda run, n=num_workers: run.num_workers == n)
        drivers.gate.touch()
        printed, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == EXIT_OK, errors
    missing = "a worker needs 1 CPU, the cluster's 1 node has 0 CPUs"
    limit = "the run stops after 1800 s (workers.wait_for_resources_s)"
    assert printed.count(f"Z waiting for 1 device: {missing}; {limit}\n") == 1


def test_a_job_whose_driver_holds_all_cpus_says_so_in_json_that_ray_shows(
    ray_cluster: LocalRay, start: Callable[[LocalRay], Drivers]
) -> None:
    drivers = start(ray_cluster)
    job = subprocess.run(
        [
            *(ray_command(), "job", "submit", "--entrypoint-num-cpus=2", "--submission-id=json"),
            *("--", sys.executable, "-m", "jobs"),
            *drivers.arguments("workers.wait_for_resources_s=8", "--log-format=json"),
        ],
        env=ray_cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE_S,
    )
    assert job.returncode != EXIT_OK
    reason = (
        "a worker needs 1 CPU, the cluster's 1 node has 0 CPUs besides the 2 CPUs of this run's "
        "own driver (ray job submit --entrypoint-num-cpus)"
    )
    (command,) = re.findall(
        r"^RAY_AUTH_MODE=token (ray job logs .*) JOB \| jq -cR 'fromjson\?", PAGE, re.MULTILINE
    )
    shown = subprocess.run(
        [ray_command(), *command.split()[1:], "json"],
        env=ray_cluster.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    lines = shown.stdout.splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("{"))
    entries = {entry["event"]: entry for entry in map(json.loads, lines[begin:])}
    assert (
        f"waiting for 1 device: {reason}; the run stops after 8 s"
        in (entries["workers_waiting"]["message"])
    )
    late = f"no room for a worker within 8 s (workers.wait_for_resources_s): {reason}"
    assert late in entries["run_stopped"]["message"]
    assert entries["run_stopped"]["error_type"] == "NoWorkersError"
    assert late in entries["stopped"]["message"]
    assert entries["stopped"]["exit_code"] == EXIT_STOPPED
