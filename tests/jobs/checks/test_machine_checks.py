"""The checks of one machine: each one finds its fault, and one that hangs is named."""

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

import jobs.checks.node
from jobs.checks.clock import ahead_s
from jobs.checks.cluster import ANSWER, NodeReport, findings
from jobs.checks.machine import (
    Check,
    check_clock,
    check_decoder,
    check_ffmpeg,
    check_store,
    package_versions,
)
from jobs.checks.node import NodeQuestion, check_offered_devices, check_versions, examine, within
from jobs.checks.weights import ModelQuestion, check_weights
from jobs.manifest.model_catalog import ModelCatalog
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_store import FolderStore
from jobs.store.store import open_store
from pipelines.catalog.files import file_digests
from pipelines.catalog.model_folder import ModelWeights
from pipelines.catalog.model_yaml import load_model_config
from tests.builders import weights

STORE = StoreConfig()


class Clocks:
    """A store and a machine, each with a clock."""

    def __init__(self, machine_s: float, store_s: float, answer_s: float = 0.0) -> None:
        self._machine_s, self._store_s, self._answer_s = machine_s, store_s, answer_s

    def stores(self) -> float:
        self._machine_s += self._answer_s
        return self._store_s

    def machine(self) -> float:
        return self._machine_s


@pytest.mark.parametrize(
    ("machine_s", "store_s", "answer_s", "ahead"),
    [
        (100, 100, 0, 0),
        (107, 100, 0, 7),
        (93, 100, 0, -7),
        (93, 100, 9, 0),  # the answer took 9 s, and was made 7 s after the question
        (93, 100, 3, -4),
    ],
)
def test_a_clock_is_compared_within_the_time_that_the_answer_took(
    machine_s: float,
    store_s: float,
    answer_s: float,
    ahead: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clocks = Clocks(machine_s, store_s, answer_s)
    store = open_store((tmp_path / "out").as_uri(), STORE)
    monkeypatch.setattr(FolderStore, "now", lambda _: clocks.stores())
    monkeypatch.setattr(time, "time", clocks.machine)
    assert ahead_s(store) == ahead


def test_a_machine_encodes_decodes_writes_and_has_the_stores_clock(tmp_path: Path) -> None:
    output = (tmp_path / "out").as_uri()
    for check in (
        check_ffmpeg(), check_decoder(), check_store(output, STORE), check_clock(output, STORE)
    ):  # fmt: skip
        assert check.is_ok, check


def test_an_ffmpeg_that_does_not_encode_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no encoder >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(broken))
    assert check_ffmpeg() == Check(
        "ffmpeg", is_ok=False, message="ffmpeg failed with code 1: no encoder"
    )
    assert check_decoder().is_ok is False


def test_a_wrong_clock_and_a_store_that_cannot_be_written_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = (tmp_path / "out").as_uri()
    monkeypatch.setattr("jobs.checks.machine.ahead_s", lambda _store: -61.0)
    check = check_clock(output, STORE)
    assert (check.is_ok, "this machine's clock is 61 s behind the clock of" in check.message) == (
        False,
        True,
    ), check
    (tmp_path / "file").touch()
    assert check_store((tmp_path / "file" / "below").as_uri(), STORE).is_ok is False


def test_other_versions_than_the_drivers_are_found() -> None:
    own = dict(package_versions())
    assert check_versions(own).is_ok
    other = check_versions({**own, "torch": "1.0"})
    assert other.is_ok is False
    assert f"torch {own['torch']} here, 1.0 on the driver" in other.message


def test_a_node_with_fewer_gpus_than_ray_offers_is_found() -> None:
    assert check_offered_devices(0).is_ok is None
    check = check_offered_devices(128)
    assert check.is_ok is False
    assert "Ray offers 128 GPUs, and torch" in check.message


def test_a_check_that_hangs_is_named_and_hides_no_other() -> None:
    gate = threading.Event()

    def hang() -> Check:
        gate.wait()
        return Check("store", is_ok=True, message="")

    def fail() -> Check:
        raise ZeroDivisionError("by zero")

    good = Check("ffmpeg", is_ok=True, message="encodes")
    found = within(0.2, [("store", hang), ("ffmpeg", lambda: good), ("clock", fail)])
    gate.set()
    assert found == (
        Check("store", is_ok=False, message="no answer within 0.2 s"),
        good,
        Check("clock", is_ok=False, message="ZeroDivisionError: by zero"),
    )


@pytest.fixture
def model(tmp_path: Path) -> ModelQuestion:
    """A model whose weights are whole and whose digest is not known."""
    folder = weights.write_model(tmp_path / "weights")
    path = tmp_path / "mine.yaml"
    path.write_text(weights.YAML.format(source="./weights"))
    found = ModelCatalog(tmp_path).get("mine").weights
    assert found.folder == folder
    return ModelQuestion(load_model_config(path), path, found, is_asked_for=False)


def test_weights_are_named_with_path_and_revision(model: ModelQuestion) -> None:
    assert model.weights is not None
    check = check_weights(model)
    expected = f"mine: {model.weights.folder}, {model.weights.revision}"
    assert (check.is_ok, check.message) == (True, expected)


def test_large_weights_without_a_known_digest_are_a_note(
    model: ModelQuestion, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_digests, "MIN_CACHED_BYTES", 0)
    monkeypatch.setattr(file_digests, "FRESH_NS", 0)
    check = check_weights(model)
    assert check.is_ok is None
    assert "its digest is not known there" in check.message
    ModelCatalog(tmp_path).get("mine")  # hashes them
    assert check_weights(model).is_ok


@pytest.mark.parametrize(
    ("drivers", "is_asked_for", "is_ok"),
    [(False, False, None), (False, True, False), (True, False, False)],
)
def test_weights_that_a_node_lacks_are_a_fault_if_workers_need_them(
    model: ModelQuestion, tmp_path: Path, drivers: bool, is_asked_for: bool, is_ok: bool | None
) -> None:
    assert model.weights is not None
    (tmp_path / "weights").rename(tmp_path / "elsewhere")
    found = model.weights if drivers else None
    check = check_weights(ModelQuestion(model.config, model.path, found, is_asked_for))
    assert check.is_ok is is_ok
    assert "does not exist" in check.message


def test_other_weights_than_the_drivers_are_a_fault(model: ModelQuestion) -> None:
    assert model.weights is not None
    other = ModelWeights(model.weights.folder, "local-0123")
    check = check_weights(ModelQuestion(model.config, model.path, other, is_asked_for=False))
    assert check.is_ok is False


def test_a_node_that_renders_nothing_needs_no_weights(
    model: ModelQuestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs.checks.node, "check_ffmpeg", lambda: Check("ffmpeg", None, ""))

    def names(num_cpus: float) -> list[str]:
        versions: Mapping[str, str] = package_versions()
        asked = NodeQuestion((model,), None, STORE, versions, num_cpus, 0, 60)
        return [check.name for check in examine(asked)]

    assert names(0) == ["packages", "ffmpeg", "store", "clock"]
    assert names(1) == ["packages", "ffmpeg", "weights", "device", "store", "clock"]


def test_equal_findings_are_one_line_and_faults_come_last() -> None:
    good = Check("ffmpeg", is_ok=True, message="encodes")
    bad = Check("store", is_ok=False, message="refused")
    late = Check(ANSWER, is_ok=False, message="did not answer within 60 s")
    reports = [
        NodeReport("node-a", "10.0.0.1", "", (bad, good)),
        NodeReport("node-b", "10.0.0.2", "", (good,)),
        NodeReport("node-c", "10.0.0.3", "", (late,)),
    ]
    assert [str(finding) for finding in findings(reports)] == [
        "ok    ffmpeg on node-a, node-b: encodes",
        "FAIL  store on node-a: refused",
        "FAIL  answer on node-c: did not answer within 60 s",
    ]
    assert str(findings(reports[:2])[0]) == "ok    ffmpeg on every node: encodes"
    assert [reports[0].cell(name) for name in ("ffmpeg", "store", "clock")] == ["ok", "FAIL", "-"]
    many = [NodeReport(f"node-{index}", "", "", (good,)) for index in range(9)]
    last = NodeReport("other", "", "", (bad,))
    assert "node-5 and 3 more: encodes" in str(findings([*many, last])[0])
