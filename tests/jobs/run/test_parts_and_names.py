"""A manifest that is rendered in parts: random seeds, further names, its rows and its files."""

import csv
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.records.commit import committed_ids
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.manifests import jsonl
from tests.fakes.model import FakeLoader

pytestmark = pytest.mark.cluster

ROWS = (
    {"prompt": "one", "name": "first"},
    {"prompt": "two", "seed": "random"},
    {"prompt": "two", "seed": "random"},
    {"prompt": "one", "name": "twin"},
)


def test_parts_of_a_manifest_make_the_same_clips_as_the_whole(
    ray_cluster: LocalRay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    manifest, output = tmp_path / "spring.jsonl", (tmp_path / "out").as_uri()
    manifest.write_text(jsonl(ROWS))
    arguments = [str(manifest), "--model=shapes-wan", f"--output={output}"]

    def printed(command: str, *options: str) -> str:
        assert main([command, *arguments, "workers.count=1", *options], FakeLoader()) == 0
        return capsys.readouterr().out

    def rows() -> list[dict[str, str]]:
        assert "4 rows in" in printed("plan", "--rows", str(tmp_path / "rows.csv"))
        with (tmp_path / "rows.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    planned = rows()
    assert [row["state"] for row in planned] == ["pending"] * 4
    assert "committed 1 clip in" in printed("render", "--limit", "1")
    found = printed("render", "--only", "twin")
    assert "nothing to render: 1 of 1 clips are already in" in found
    assert "recorded 1 further name of committed clips" in found
    found = printed("render")
    assert "committed 2 clips in" in found
    assert "further name" not in found
    done = rows()
    assert [(row["name"], row["clip_id"]) for row in done] == [
        (row["name"], row["clip_id"]) for row in planned
    ]
    assert [row["name"] for row in done] == ["first", "spring-000001", "spring-000002", "twin"]
    assert {row["clip_id"] for row in done} == committed_ids(open_store(output, StoreConfig()))
    assert len({row["clip_id"] for row in done}) == 3
    assert all(row["state"] == "done" for row in done)
    assert main(["status", output]) == 0
    assert "names        1 further name of committed clips" in capsys.readouterr().out
    assert main(["verify", output, "--manifest", str(manifest), "--model=shapes-wan"]) == 0
    assert main(["export", output, str(tmp_path / "clips")]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "clips").iterdir()} == {
        f"{row['name']}.mp4": (tmp_path / "out" / row["key"]).read_bytes() for row in done
    }
