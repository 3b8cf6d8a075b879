"""The preStop hook of the farm's pods, on real processes and a real cluster."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.kuberay.farm import drain as hook
from tests.structure import ROOT


@pytest.mark.parametrize(
    ("words", "is_run"),
    [
        (["/venv/bin/python", "/venv/bin/nagfarm", "render", "m.yaml"], True),
        (["/venv/bin/nagfarm", "bench", "negatives"], True),
        (["/bin/sh", "-c", "nagfarm render m.yaml"], False),  # its child is the run
        (["/venv/bin/python", "/venv/bin/nagfarm", "status", "s3://renders"], False),
        (["grep", "nagfarm", "render"], True),  # nothing else starts such a process in a pod
        (["ray::JobSupervisor"], False),
        ([""], False),
    ],
)
def test_a_run_is_known_by_its_command(words: list[str], is_run: bool) -> None:
    assert hook.runs({7: words}) == ({7} if is_run else set())


@pytest.mark.parametrize(
    ("title", "is_worker"),
    [
        ("ray::RenderActor", True),
        ("ray::RenderActor.render", True),
        ("ray::GroupActor.load", True),
        ("ray::FollowerActor", True),
        ("ray::IDLE", False),
        ("ray::JobSupervisor", False),
        ("/venv/bin/python", False),
    ],
)
def test_a_worker_is_known_by_its_title(title: str, is_worker: bool) -> None:
    assert hook.workers({7: [title]}) == ({7} if is_worker else set())


def test_a_pod_without_runs_and_workers_ends_at_once() -> None:
    assert hook.drain(60.0, numbers=[])


def test_processes_of_another_user_are_left_alone() -> None:
    """A unit's user could not stop them, and would wait for them in vain."""
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    command = ["sh", "-c", "echo ready; read line"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(command, user=65534, **pipes) as other,
        subprocess.Popen(command, **pipes) as own,
    ):
        for process in (other, own):
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        assert set(hook.processes([own.pid, other.pid])) == {own.pid}
        for process in (other, own):
            process.communicate()


# The tests may run under nohup, and a run would ignore SIGHUP as they do.
HEEDS_SIGHUP = "import signal\nsignal.signal(signal.SIGHUP, signal.SIG_DFL)\n"


def run_that(folder: Path, program: str) -> "subprocess.Popen[bytes]":
    """Start a process that looks like a run, and wait until it handles signals."""
    script = folder / "nagfarm"
    script.write_text(HEEDS_SIGHUP + program)
    command = [sys.executable, str(script), "render"]
    run = subprocess.Popen(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == b"ready\n"
    return run


# The handlers of a run, which takes a second to drain.
DRAINS = """
import time
from jobs.ending import drained_by_signals
asked = []
with drained_by_signals(asked.append):
    print("ready", flush=True)
    while not asked:
        time.sleep(0.05)
    print("asked", flush=True)
    time.sleep(1)
"""


def test_a_run_is_asked_to_stop_and_awaited(tmp_path: Path) -> None:
    with run_that(tmp_path, DRAINS) as run:
        assert hook.drain(60.0, numbers=[run.pid])
        assert run.wait() == 0


def test_a_run_that_was_asked_before_still_drains(tmp_path: Path) -> None:
    """The end of a RayJob sends SIGTERM first, and a second SIGTERM would end the run at once."""
    with run_that(tmp_path, DRAINS) as run:
        run.send_signal(signal.SIGTERM)
        assert run.stdout is not None
        assert run.stdout.readline() == b"asked\n"
        assert hook.drain(60.0, numbers=[run.pid])
        assert run.wait() == 0


def test_a_run_that_does_not_end_is_not_awaited_for_ever(tmp_path: Path) -> None:
    program = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with run_that(tmp_path, program + "print('ready', flush=True)\ninput()\n") as run:
        assert not hook.drain(0.0, numbers=[run.pid])
        run.kill()
