"""`nagfarm doctor --cluster`: every node is asked, and one that hangs or fails is named."""

import operator
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from infra.local.s3_server import LocalS3
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.cluster.nodes.node_tasks import alive_nodes, ask_nodes

pytestmark = pytest.mark.cluster


@pytest.fixture
def on_the_cluster(
    ray_cluster: LocalRay, s3_environment: LocalS3, monkeypatch: pytest.MonkeyPatch
) -> LocalRay:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    return ray_cluster


def test_doctor_checks_every_node_of_the_cluster(
    on_the_cluster: LocalRay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "spring.csv"
    manifest.write_text("prompt\na red circle\n")
    written = ["--manifest", str(manifest), "--model", "shapes-wan"]
    output = ["--output", "s3://renders/doctor"]
    assert main(["doctor", "--cluster", *written, *output]) == EXIT_OK
    header, row, _, *lines = capsys.readouterr().out.splitlines()
    assert header.split() == [
        *("node", "address", "offers"),
        *("packages", "weights", "device", "ffmpeg", "store", "clock"),
    ]
    assert row.split()[-6:] == ["ok", "ok", "note", "ok", "ok", "ok"]
    assert any("weights on" in line and "shapes-wan: /" in line for line in lines)
    assert any("s3://renders/doctor can be written" in line for line in lines)

    assert main(["doctor", "--cluster", *written, "--output", "s3://no-such-bucket/x"]) == (
        EXIT_REFUSED
    )
    printed = capsys.readouterr().out
    assert "FAIL  store on" in printed
    assert "NoSuchBucket; create the bucket" in printed


@pytest.mark.slow
def test_doctor_names_a_node_that_hangs(
    on_the_cluster: LocalRay, capsys: pytest.CaptureFixture[str]
) -> None:
    node = on_the_cluster.add_node(1)
    node.raylet.suspend()
    asked = ["--model", "shapes-wan", "--node-timeout", "10"]
    assert main(["doctor", "--cluster", *asked]) == EXIT_REFUSED
    node.raylet.resume()
    node.stop()
    name = f"{socket.gethostname()}/{node.node_id[:6]}"
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-2:] for line in lines if line.startswith(name)] == [["no", "answer"]]
    assert lines[-1] == f"FAIL  answer on {name}: did not answer within 10 s"


def test_doctor_starts_no_cluster_to_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert main(["doctor", "--cluster", "--model", "shapes-wan"]) == EXIT_REFUSED
    assert "no Ray cluster is running on this machine: run this on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("question", "deadline_s", "fault"),
    [
        (partial(time.sleep, 600), 4, "did not answer within 4 s"),
        (partial(signal.raise_signal, signal.SIGKILL), 60, "died"),
        (partial(Path.read_text, Path("/no/such/file")), 60, "FileNotFoundError"),
    ],
)
def test_a_node_that_hangs_dies_or_fails_is_an_answer(
    ray_driver: LocalRay, question: Callable[[], object], deadline_s: float, fault: str
) -> None:
    (answer,) = ask_nodes(lambda _node: question, deadline_s)
    assert answer.value is None
    assert fault in answer.fault


def test_a_node_whose_devices_are_held_answers(ray_driver: LocalRay) -> None:
    import ray

    (node,) = alive_nodes()
    held = ray.util.placement_group([{"CPU": node.num_cpus}])
    ray.get(held.ready())
    answers = ask_nodes(lambda node: partial(operator.attrgetter("host"), node), 60)
    assert [(answer.value, answer.fault) for answer in answers] == [(node.host, "")]
    ray.util.remove_placement_group(held)
