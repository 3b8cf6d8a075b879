"""Whole runs with groups through the command line: same pixels, and records with the devices."""

import json
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.records.commit import committed_ids, read_record
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

pytestmark = [pytest.mark.cluster, pytest.mark.models]


@pytest.fixture
def farm(ray_cluster: LocalRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the runs of this process to the test cluster."""
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "spring.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(command: str, path: Path, output: Path) -> int:
    return main([command, str(path), "--model", "shapes-wan", "--output", output.as_uri()])


def test_a_clip_is_the_same_on_one_device_and_on_a_group_and_one_run_renders_both_kinds(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One run has clips of both kinds; neither kind waits for devices of the other."""
    guided: dict[str, object] = {
        "prompt": "a circle moving right",
        "negative_prompt": "red",
        "num_inference_steps": 3,
    }
    plain: dict[str, object] = {"prompt": "a square", "num_inference_steps": 3, "seed": 1}
    pair = {"parallel": {"ulysses": 2}}
    assert run("render", write(tmp_path, [guided | pair, plain]), tmp_path / "grouped") == EXIT_OK
    assert "(group of 2: ulysses 2; pids " in capsys.readouterr().out
    assert run("render", write(tmp_path, [guided]), tmp_path / "single") == EXIT_OK
    grouped, single = (
        open_store((tmp_path / name).as_uri(), StoreConfig()) for name in ("grouped", "single")
    )
    (clip_id,) = committed_ids(single)
    by_group, by_one = read_record(grouped, clip_id), read_record(single, clip_id)
    assert by_group.sha256 == by_one.sha256
    assert (by_group.parallel, by_one.parallel) == (ParallelConfig(ulysses=2), ONE_DEVICE)
    assert len(committed_ids(grouped)) == 2


def test_a_group_too_large_for_every_machine_is_refused_before_anything_is_rendered(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row: dict[str, object] = {"prompt": "a circle", "num_frames": 17, "parallel": {"ulysses": 4}}
    for command in ("plan", "render"):
        assert run(command, write(tmp_path, [row]), tmp_path / "out") == EXIT_REFUSED
        assert (
            "no place for a group of 4 ranks (ulysses 4), each of 1 CPU" in capsys.readouterr().err
        )
    assert not (tmp_path / "out" / "runs").exists()


def test_a_plan_without_ray_address_starts_no_cluster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    row: dict[str, object] = {"prompt": "a circle", "num_frames": 17, "parallel": {"ulysses": 4}}
    assert run("plan", write(tmp_path, [row]), tmp_path / "out") == EXIT_OK
    assert "ulysses 4" in capsys.readouterr().out
