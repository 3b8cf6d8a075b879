"""Who can reach the cluster: the claims of explanation/security.md about strangers."""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from psutil import CONN_LISTEN, Process

from infra.local.ray_cluster import LocalRay, ray_command

pytestmark = pytest.mark.cluster


def status(cluster: LocalRay, path: str, token: str | None, body: bytes | None = None) -> int:
    headers = {
        "Content-Type": "application/json",
        **({} if token is None else {"Authorization": f"Bearer {token}"}),
    }
    try:
        request = urllib.request.Request(cluster.dashboard_url + path, body, headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a_job_without_the_token_is_refused_and_not_run(
    ray_cluster: LocalRay, tmp_path: Path
) -> None:
    body = json.dumps(
        {"entrypoint": f"touch {tmp_path / 'ran'}", "submission_id": f"stranger-{os.getpid()}"}
    ).encode()
    assert status(ray_cluster, "/api/jobs/", None, body) == 401
    assert status(ray_cluster, "/api/jobs/", "0" * 64, body) == 403
    for path in ("/api/jobs/", "/api/version", "/api/cluster_status", "/nodes?view=summary"):
        assert status(ray_cluster, path, None) == 401
    token = ray_cluster.token_path.read_text()
    assert status(ray_cluster, "/api/jobs/", token) == 200
    assert status(ray_cluster, f"/api/jobs/stranger-{os.getpid()}", token) == 404
    assert not (tmp_path / "ran").exists()


def environment_with(cluster: LocalRay, token: str | None) -> dict[str, str]:
    """Return a client's environment with the given token alone."""
    kept = {
        name: value for name, value in cluster.environment().items() if not name.startswith("RAY_A")
    }
    own = (
        {"RAY_AUTH_MODE": "disabled"}
        if token is None
        else {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    )
    return {**kept, **own, "HOME": "/nowhere"}


def test_ray_job_submit_without_the_token_is_refused(ray_cluster: LocalRay) -> None:
    command = [
        ray_command(),
        "job",
        "submit",
        f"--address={ray_cluster.dashboard_url}",
        "--",
        "true",
    ]
    finished = subprocess.run(
        command,
        env=environment_with(ray_cluster, None),
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode != 0
    assert "Missing authentication token" in finished.stdout + finished.stderr


@pytest.mark.slow
def test_a_driver_without_the_token_does_not_get_into_the_cluster(ray_cluster: LocalRay) -> None:
    program = f"import ray\nray.init({ray_cluster.address!r}, log_to_driver=False)\nprint('inside')"
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=environment_with(ray_cluster, token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for token in (None, "0" * 64, ray_cluster.token_path.read_text())
    ]
    answers = [driver.communicate(timeout=120) for driver in drivers]
    assert [driver.returncode == 0 for driver in drivers] == [False, False, True]
    assert ["inside" in printed for printed, _ in answers] == [False, False, True]
    assert all("token" in errors for _, errors in answers[:2])


def test_the_dashboard_listens_on_loopback_alone(ray_cluster: LocalRay) -> None:
    port = int(ray_cluster.dashboard_url.rpartition(":")[2])

    def listens(process: Process) -> Iterator[str]:
        for connection in process.net_connections("tcp"):
            if connection.status == CONN_LISTEN and connection.laddr.port == port:
                yield connection.laddr.ip

    assert {address for process in ray_cluster.processes() for address in listens(process)} == {
        "127.0.0.1"
    }


def test_only_its_owner_can_read_the_token(ray_cluster: LocalRay) -> None:
    assert ray_cluster.token_path.stat().st_mode & 0o077 == 0
