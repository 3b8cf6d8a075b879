"""The driver as a process: its log is lost, it gets signals, its manifest is rewritten."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_STOPPED
from jobs.ending import ExitCode
from jobs.overview.output_status import OutputStatus, read_output_status
from jobs.records.lease_keeper import SHORT_S
from jobs.records.run_status import RunStop
from jobs.run.failure_writer import FailureWriter
from jobs.run.run import Run
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.manifests import jsonl
from tests.builders.webhook import WebhookServer, served
from tests.fakes.model import FakeLoader

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[3]
DEADLINE_S = 120.0
DRIVER = """
import sys
from jobs.cli.main import main
from tests.fakes.model import FakeLoader
sys.exit(main(loader=FakeLoader()))
"""


@dataclass
class Drivers:
    """Starts drivers on one output, whose clips wait until `gate` exists."""

    cluster: LocalRay
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list["subprocess.Popen[str]"])

    def __post_init__(self) -> None:
        self.gate = self.folder / "gate"
        self.manifest = self.folder / "spring.jsonl"
        self.output = self.folder / "out"
        self.write_manifest("first")

    def write_manifest(self, word: str) -> None:
        prompts = [f"wait {word} {number} {self.gate}" for number in range(6)]
        rows = [{"prompt": prompt, "text": "truncate"} for prompt in prompts]
        self.manifest.write_text(jsonl(rows))

    def arguments(self, *settings: str) -> list[str]:
        return [
            *("render", str(self.manifest), "--model=shapes-wan"),
            *(f"--output={self.output.as_uri()}", "workers.count=1", *settings),
        ]

    def start(
        self,
        *settings: str,
        wrapper: Sequence[str] = (),
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.PIPE,
    ) -> subprocess.Popen[str]:
        driver = subprocess.Popen(
            [*wrapper, sys.executable, "-c", DRIVER, *self.arguments(*settings)],
            cwd=REPOSITORY,
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            stdout=stdout,
            stderr=stderr,
            text=True,
        )
        self.started.append(driver)
        return driver

    def status(self) -> OutputStatus:
        return read_output_status(open_store(self.output.as_uri(), StoreConfig()))

    def wait_for_clip(self, driver: subprocess.Popen[str]) -> None:
        """Wait until the driver's status shows a clip in flight."""
        deadline = time.monotonic() + DEADLINE_S
        while (run := self.status().run) is None or not run.in_flight:
            assert driver.poll() is None, driver.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture
def drivers(ray_cluster: LocalRay, tmp_path: Path) -> Iterator[Drivers]:
    found = Drivers(ray_cluster, tmp_path)
    yield found
    for driver in found.started:
        driver.kill()
        driver.communicate()


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    """A webhook that the drivers of a test get."""
    with served(WebhookServer()) as server:
        monkeypatch.setenv("NAGFARM_WEBHOOK_URL", server.url)
        yield server


def test_a_run_goes_on_without_its_log_and_its_status_says_so(drivers: Drivers) -> None:
    read, write = os.pipe()
    os.close(read)
    drivers.gate.touch()
    with Path("/dev/full").open("w") as full:
        driver = drivers.start(stdout=full.fileno(), stderr=write)
    os.close(write)
    assert driver.wait(DEADLINE_S) == EXIT_OK
    status = drivers.status()
    assert status.num_committed == 6
    assert status.run is not None
    assert status.run.state == "finished"
    assert status.run.num_log_bytes_dropped > len("worker is ready on fake")
    assert status.run.log_trouble == "No space left on device"


@pytest.mark.parametrize(
    ("numbers", "drain_s"),
    [((signal.SIGHUP,), 0.5), ((signal.SIGINT, signal.SIGINT), 600), ((signal.SIGTERM,), 0.5)],
)
def test_a_signal_stops_the_run_and_its_status_tells_the_truth(
    drivers: Drivers,
    numbers: tuple[signal.Signals, ...],
    drain_s: float,
    webhook: WebhookServer,
) -> None:
    driver = drivers.start(
        f"workers.drain_s={drain_s}",
        "store.lease_s=3",  # so that the status is written every second
        wrapper=["env", "--default-signal=HUP"],  # the tests may run under nohup
    )
    drivers.wait_for_clip(driver)
    driver.send_signal(numbers[0])
    for number in numbers[1:]:
        deadline = time.monotonic() + DEADLINE_S
        while (run := drivers.status().run) is None or run.state != "draining":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(number)
    _, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == EXIT_STOPPED, errors
    reason = f"by {numbers[0].name}; run it again to go on"
    assert f"nagfarm: stopped: {reason}" in errors
    status = drivers.status()
    assert status.run is not None
    assert status.run.state == "stopped"
    assert status.run.stop == RunStop("StoppedError", reason)
    (summary,) = drivers.output.glob("runs/*/summary.json")
    document = json.loads(summary.read_text())
    assert document["stop"]["message"] == reason
    if len(numbers) == 1:  # two end the run at once
        started, stopped = webhook.bodies
        assert (started["event"], stopped["event"]) == ("started", "stopped")
        assert (stopped["summary"], started["summary"]) == (document, None)
    assert status.lease is not None
    assert status.lease.is_released


def test_a_run_that_waits_for_a_dead_driver_takes_its_output_and_renders_the_rest(
    drivers: Drivers,
) -> None:
    dead = drivers.start("store.lease_s=6", "workers.spool_clips=1")
    drivers.wait_for_clip(dead)
    dead.kill()
    dead.wait()
    drivers.gate.touch()
    waiting = drivers.start("--wait")
    printed, errors = waiting.communicate(timeout=DEADLINE_S)
    assert waiting.returncode == EXIT_OK, errors
    assert printed.count("waiting for") == 1
    assert f"waiting for {drivers.output.as_uri()}, which another driver holds: run " in printed
    assert drivers.status().num_committed == 6


def test_a_run_ends_at_its_deadline_and_says_what_is_left(drivers: Drivers) -> None:
    """The clips never end, so that they are left however long the driver takes to start."""
    driver = drivers.start("--deadline=8s", "workers.drain_s=0.5", "--time-zone=Europe/Berlin")
    _, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == ExitCode.DEADLINE, errors
    assert re.search(
        r"stopped: by the deadline \S+ \(Europe/Berlin\): 6 of 6 clips are left[^;]*; run it again",
        errors,
    )
    status = drivers.status()
    assert status.run is not None
    assert status.run.state == "stopped"
    assert status.run.stop is not None
    assert status.run.stop.error_type == "DeadlineReachedError"
    (summary,) = drivers.output.glob("runs/*/summary.json")
    document = json.loads(summary.read_text())
    assert (document["num_left"], document["is_finished"]) == (6, False)
    assert document["deadline"]["time_zone"] == "Europe/Berlin"
    (run,) = drivers.output.glob("runs/*/run.json")
    assert json.loads(run.read_text())["deadline"] == document["deadline"]
    assert list(drivers.output.glob("runs/*/records.parquet")), "a night that ended has its tables"
    assert status.lease is not None
    assert status.lease.is_released


def test_a_run_that_is_killed_while_it_drains_holds_up_the_next_one_only_for_seconds(
    drivers: Drivers,
) -> None:
    store = open_store(drivers.output.as_uri(), StoreConfig())
    driver = drivers.start("workers.drain_s=600", "store.lease_s=30")
    drivers.wait_for_clip(driver)
    driver.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + DEADLINE_S
    while (lease := drivers.status().lease) is None or lease.is_alive(store.now() + SHORT_S):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    lease = drivers.status().lease
    assert lease is not None
    assert not lease.is_released
    assert not lease.is_alive(store.now() + SHORT_S)


def test_a_run_under_nohup_outlives_its_terminal(drivers: Drivers) -> None:
    driver = drivers.start(wrapper=["nohup"])
    drivers.wait_for_clip(driver)
    driver.send_signal(signal.SIGHUP)
    drivers.gate.touch()
    _, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == EXIT_OK, errors
    assert drivers.status().num_committed == 6
    assert "INFO" not in errors, "Ray's own lines are not for users"


def test_a_run_whose_manifest_is_rewritten_finishes_what_is_in_flight_and_stops(
    drivers: Drivers,
) -> None:
    driver = drivers.start("workers.drain_s=60", "workers.spool_clips=1")
    drivers.wait_for_clip(driver)
    drivers.write_manifest("second")
    drivers.gate.touch()
    _, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == EXIT_STOPPED, errors
    assert "stopped: " in errors
    assert "spring.jsonl:1: the file was rewritten after it was opened; run it again" in errors
    status = drivers.status()
    assert 0 < status.num_committed < 6
    assert status.run is not None
    assert (status.run.state, status.run.in_flight) == ("stopped", ())
    assert status.run.stop is not None
    assert "the file was rewritten after it was opened" in status.run.stop.message


def test_a_run_leaves_the_rows_that_are_appended_for_the_next_one(
    drivers: Drivers, webhook: WebhookServer
) -> None:
    webhook.may_answer.clear()  # a webhook that hangs holds up no run
    driver = drivers.start("notify.end_s=0.1", "notify.timeout_s=600")
    drivers.wait_for_clip(driver)
    with drivers.manifest.open("a") as file:
        file.write(jsonl([{"prompt": "appended"}]))
    drivers.gate.touch()
    printed, errors = driver.communicate(timeout=DEADLINE_S)
    assert driver.returncode == EXIT_OK, errors
    assert drivers.status().num_committed == 6
    assert f"{drivers.manifest} has more rows than when it was opened; run it again" in printed
    lost = re.findall(r"the notification '(\w+)' was not sent: the run has ended", printed)
    assert lost == ["started", "finished"]
    assert not webhook.may_answer.is_set()
    webhook.may_answer.set()
    printed, errors = drivers.start().communicate(timeout=DEADLINE_S)
    assert "committed 1 clip in" in printed, errors
    assert "has more rows" not in printed


@pytest.mark.parametrize(
    ("owner", "method", "thread"),
    [(Run, "write_documents", "lease"), (FailureWriter, "_write", "failure-writer")],
)
def test_a_run_does_not_outlive_a_thread_that_it_relies_on(
    drivers: Drivers,
    owner: type,
    method: str,
    thread: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("in a thread")

    monkeypatch.setenv("RAY_ADDRESS", drivers.cluster.address)
    monkeypatch.setattr(owner, method, fail)
    drivers.manifest.write_text(jsonl([{"prompt": "error"}]))
    assert main(drivers.arguments(), loader=FakeLoader()) == EXIT_STOPPED
    errors = capsys.readouterr().err
    assert f"stopped: the {thread} thread died: ZeroDivisionError: in a thread" in errors
    if thread != "lease":  # the lease thread itself writes the status
        run = drivers.status().run
        assert run is not None
        assert run.stop is not None
        assert run.stop.error_type == "SideThreadError"
    assert errors.count("Traceback") == 1
