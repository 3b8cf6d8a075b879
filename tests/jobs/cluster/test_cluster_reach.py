"""A Ray cluster that is not there, and limits that keep one from starting: one plain refusal.

A socket that listens stands for the control service of a cluster; `render` must not hang on it.
"""

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR
from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

from infra.local.local_process import free_ports
from jobs.cli import doctor
from jobs.cluster.reach import (
    GREETING,
    ClusterAddress,
    check_start,
    existing_cluster,
    reach,
    start_remedy,
)
from jobs.ending import ExitCode
from jobs.errors import NoClusterError
from jobs.records.lease import Lease
from jobs.settings.run_config import StoreConfig
from jobs.store.plain_folder import RAY_JOB
from jobs.store.store import open_store

HOST = "127.0.0.1"
ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples"
STOPPED_LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ nagfarm: stopped: by SIGINT; run it again to go on"
)
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def at(port: int, host: str = HOST) -> ClusterAddress:
    return ClusterAddress(host, port, "RAY_ADDRESS", "correct or unset RAY_ADDRESS")


@contextlib.contextmanager
def listener(answer: bytes | None, is_reached: threading.Event | None = None) -> Generator[int]:
    """Listen on all addresses, and answer each connection's first bytes; None answers nothing."""
    with socket.create_server(("", 0)) as server, contextlib.ExitStack() as kept:

        def serve() -> None:
            with contextlib.suppress(OSError):  # the server is closed at the end
                while True:
                    connection = kept.enter_context(server.accept()[0])
                    connection.recv(len(GREETING))
                    if is_reached is not None:
                        is_reached.set()
                    if answer is not None:
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)


def test_a_closed_port_is_refused_with_the_remedy() -> None:
    (port,) = free_ports(1)
    with pytest.raises(NoClusterError, match=f"{HOST}:{port}, the address in RAY_ADDRESS: Conn"):
        reach(at(port))


def test_a_host_without_a_name_is_refused() -> None:
    with pytest.raises(NoClusterError, match=r"no Ray cluster at no\.invalid:1"):
        reach(at(1, "no.invalid"))


def test_a_port_that_accepts_and_never_answers_is_refused_in_bounded_time() -> None:
    with listener(None) as port, pytest.raises(NoClusterError, match=r"no answer within 0\.3 s"):
        reach(at(port), wait_s=0.3)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"short"])
def test_another_program_on_the_port_is_refused(answer: bytes) -> None:
    with listener(answer) as port, pytest.raises(NoClusterError):
        reach(at(port), wait_s=0.3)


def test_a_control_service_that_answers_is_reached() -> None:
    with listener(SETTINGS) as port:
        reach(at(port))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("http://127.0.0.1:8265", "an URL is for `ray job submit`"),
        ("ray://head:10001", "an URL is for `ray job submit`"),
        ("head", "correct or unset RAY_ADDRESS"),
        ("head:", "RAY_ADDRESS"),
        ("head:99999", "expected HOST:PORT in RAY_ADDRESS"),
    ],
)
def test_an_address_that_names_no_control_service_is_refused(
    monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", given)
    with pytest.raises(NoClusterError, match=message):
        existing_cluster()


def test_the_file_of_an_earlier_ray_start_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    assert existing_cluster() is None
    file = tmp_path / "ray" / "ray_current_cluster"
    file.parent.mkdir()
    file.write_text("192.0.2.77:6379")
    address = existing_cluster()
    assert address is not None
    assert (address.host, address.port, address.origin) == ("192.0.2.77", 6379, str(file))
    assert "RAY_ADDRESS=local" in str(address.refusal("gone"))
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert existing_cluster() is None


def test_doctor_names_a_cluster_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    (port,) = free_ports(1)
    monkeypatch.setenv("RAY_ADDRESS", f"{HOST}:{port}")
    check, _ = doctor._ray()
    assert check.is_ok is False
    assert "Connection refused; correct or unset RAY_ADDRESS" in check.message
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert doctor._ray()[0].is_ok is None


def test_docstrings_that_are_removed_keep_ray_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    check_start()
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    with pytest.raises(NoClusterError, match="PYTHONOPTIMIZE=2"):
        check_start()


def test_limits_of_the_shell_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: 4 * 2**30, resource.RLIMIT_NOFILE: 60}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limits[which], limits[which]))
    assert "address space to 4 GiB" in start_remedy()
    with pytest.raises(NoClusterError, match="allows 60; raise `ulimit -n`"):
        check_start()


@pytest.mark.skipif(os.geteuid() != 0, reason="makes namespaces of network and mounts")
@pytest.mark.parametrize(
    ("namespace", "fault", "message"),
    [
        ("--net", "true", "no connection to it is made here: Network is unreachable; bring the"),
        ("--mount", "mount -t tmpfs -o ro none /dev/shm", "cannot be written; in a container,"),
    ],
)
def test_a_machine_without_loopback_or_shared_memory_is_refused_before_ray_starts(
    namespace: str, fault: str, message: str, tmp_path: Path
) -> None:
    code = "from jobs.cluster.reach import check_start; check_start()"
    shell = ["sh", "-c", f'{fault} && exec "$@"', "sh"]
    ended = subprocess.run(
        ["unshare", namespace, *shell, sys.executable, "-c", code],
        env={**os.environ, "HOME": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "NoClusterError" in ended.stderr
    assert message in ended.stderr


@pytest.mark.parametrize(
    ("home", "reason"),
    [("file", "Not a directory"), ("file/below", "Not a directory"), ("odd", "Is a directory")],
)
def test_a_home_in_which_ray_can_keep_no_token_is_refused_before_ray_starts(
    home: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "odd" / ".ray" / "auth_token").mkdir(parents=True)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / home))
    with pytest.raises(NoClusterError, match=f"{reason}; set HOME to a folder of this user"):
        check_start()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert "set HOME" in doctor._cluster().message
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    check_start()


def test_a_home_with_a_token_or_with_room_for_one_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "new"))
    check_start()
    assert list((tmp_path / "new" / ".ray").iterdir()) == [], "Ray makes the token itself"
    (tmp_path / "new" / ".ray" / "auth_token").write_text("a token")
    check_start()


def test_a_job_is_known_by_rays_own_variable() -> None:
    assert RAY_JOB == RAY_JOB_CONFIG_JSON_ENV_VAR


def test_the_examples_list_what_a_job_need_not_copy(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES, tmp_path / "job")
    (tmp_path / "job" / "out").mkdir()
    for name in ("out/status.json", "clip.mp4", "style.safetensors", "prompts.txt"):
        (tmp_path / "job" / name).write_bytes(b"")
    excludes = get_excludes_from_ignore_files(tmp_path / "job", include_gitignore=True)
    kept = {
        path.name
        for path in (tmp_path / "job").rglob("*")
        if path.is_file() and not any(leaves_out(path) for leaves_out in excludes)
    }
    assert kept == {"shapes.yaml", "prompts.txt", ".rayignore"}


@contextlib.contextmanager
def render(tmp_path: Path, *options: str, **variables: str) -> "Generator[subprocess.Popen[str]]":
    manifest = tmp_path / "spring.csv"
    manifest.write_text("prompt,seed\na red circle moving right,1\n")
    output = (tmp_path / "out").as_uri()
    with subprocess.Popen(
        [
            *(sys.executable, "-m", "jobs", "render", str(manifest)),
            *("--model=shapes-wan", f"--output={output}", *options),
        ],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.cluster
def test_a_control_service_that_says_no_more_after_its_greeting_is_left_at_the_first_signal(
    tmp_path: Path,
) -> None:
    """Ray's own code holds the main thread; the process ends within 2 s, and no lease is left."""
    greeted = threading.Event()
    with socket.create_server(("", 0)) as server, contextlib.ExitStack() as kept:

        def serve() -> None:
            with contextlib.suppress(OSError):
                for turn in range(100):
                    connection = kept.enter_context(server.accept()[0])
                    connection.sendall(SETTINGS)
                    if turn > 0:  # the second connection is Ray's own
                        greeted.set()

        threading.Thread(target=serve, daemon=True).start()
        with render(tmp_path, RAY_ADDRESS=f"{HOST}:{server.getsockname()[1]}") as driver:
            assert greeted.wait(60)
            driver.send_signal(signal.SIGINT)
            sent = time.monotonic()
            _, errors = driver.communicate(timeout=60)
            assert time.monotonic() - sent < 4  # 2 s on an idle machine
        server.shutdown(socket.SHUT_RDWR)
    assert driver.returncode == ExitCode.STOPPED
    assert STOPPED_LINE.fullmatch(errors.splitlines()[-1])
    assert not (tmp_path / "out" / "lease").exists()


def test_ctrl_c_ends_a_command_with_one_line_and_no_traceback(tmp_path: Path) -> None:
    is_reached = threading.Event()
    with (
        listener(None, is_reached) as port,
        render(tmp_path, RAY_ADDRESS=f"{HOST}:{port}") as driver,
    ):
        assert is_reached.wait(60)
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == ExitCode.STOPPED
    assert STOPPED_LINE.fullmatch(errors.removesuffix("\n"))


def test_render_without_its_cluster_is_refused_at_once_and_takes_no_lease(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with render(tmp_path, RAY_ADDRESS=f"{HOST}:{port}") as driver:
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == ExitCode.UNAVAILABLE
    assert re.fullmatch(
        rf"nagfarm: no Ray cluster at \S+:{port}, the address in RAY_ADDRESS: Connection refused; "
        "correct or unset RAY_ADDRESS\n",
        errors,
    )
    assert not (tmp_path / "out" / "lease").exists()


def test_render_that_waits_says_for_whom_and_ends_by_a_signal(tmp_path: Path) -> None:
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    Lease.take(store, "other", 600.0)
    with render(tmp_path, "--wait") as driver:
        assert driver.stdout is not None
        line = driver.stdout.readline()
        driver.send_signal(signal.SIGTERM)
        rest, errors = driver.communicate(timeout=60)
    assert f"waiting for {store.uri}, which another driver holds: run other on " in line
    assert "it is free when that driver ends or, if it is dead, in 10 min" in line
    assert rest == "", "one line, and no plan that may be out of date"
    assert driver.returncode == ExitCode.STOPPED
    assert errors.endswith(" nagfarm: stopped: by SIGTERM; run it again to go on\n")


def test_an_output_that_is_leased_is_refused_before_ray_is_reached(tmp_path: Path) -> None:
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    Lease.take(store, "other", 600.0)
    (port,) = free_ports(1)
    with render(tmp_path, RAY_ADDRESS=f"{HOST}:{port}") as driver:
        _, errors = driver.communicate(timeout=60)
    assert driver.returncode == ExitCode.BUSY
    assert "is leased by another driver: run other" in errors
    assert "Ray" not in errors
