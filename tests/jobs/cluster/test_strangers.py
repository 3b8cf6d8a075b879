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
from jobs.cli import doctor

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


@pytest.mark.parametrize(
    ("mode", "token", "is_ok", "message"),
    [
        ("token", "own", True, "takes jobs from this shell"),
        (None, "own", False, "asks for a token: put RAY_AUTH_MODE=token before `ray job submit`"),
        (None, None, False, "or export it, and put the cluster's token into RAY_AUTH_TOKEN"),
        ("token", "0" * 64, False, "has another token"),
        ("token", None, False, "RAY_AUTH_MODE=token, and no token is here; `ray get-auth-token"),
    ],
)
def test_doctor_says_whether_jobs_are_taken_from_this_shell(
    ray_cluster: LocalRay,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mode: str | None,
    token: str | None,
    is_ok: bool,
    message: str,
) -> None:
    """The token lies where `ray start` looks for it, in the user's home folder."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.dashboard_url)
    if mode is not None:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    if token is not None:
        (tmp_path / ".ray").mkdir()
        own = ray_cluster.token_path.read_text()
        (tmp_path / ".ray" / "auth_token").write_text(own if token == "own" else token)
    (check,) = doctor._ray()
    assert (check.is_ok, message in check.message) == (is_ok, True), check


def test_ray_job_submit_shows_its_token_only_in_the_mode_of_the_docs(
    ray_cluster: LocalRay, tmp_path: Path
) -> None:
    """A bare cluster: the token is in the home folder, as after `ray get-auth-token --generate`."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(ray_cluster.token_path.read_text())
    kept = {
        name: value
        for name, value in ray_cluster.environment().items()
        if not name.startswith("RAY_A")
    }
    command = [
        ray_command(),
        "job",
        "submit",
        f"--address={ray_cluster.dashboard_url}",
        "--no-wait",
    ]
    codes = [
        subprocess.run(
            [*command, "--", "true"],
            env=kept | {"HOME": str(tmp_path)} | mode, capture_output=True, check=False,
        ).returncode
        for mode in ({}, {"RAY_AUTH_MODE": "token"})
    ]  # fmt: skip
    assert codes[0] != 0
    assert codes[1] == 0


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
