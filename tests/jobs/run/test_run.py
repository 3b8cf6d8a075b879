"""Whole runs through the command line on a real Ray cluster, with a model that fails on demand."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from pyarrow.parquet import read_table

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, EXIT_QUARANTINE, EXIT_STOPPED
from jobs.costs.run_cost import RunCost
from jobs.records.commit import (
    committed_ids,
    quarantined_ids,
    read_failures,
    read_quarantine,
    read_record,
)
from jobs.records.keys import clip_key, record_key
from jobs.records.strict_json import to_dataclass
from jobs.report.scripts import document_of
from jobs.schemas.documents import schema_text
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.webhook import SECRET_PATH, WebhookServer, served
from tests.fakes.model import FakeLoader

pytestmark = pytest.mark.cluster

REPOSITORY = Path(__file__).parents[3]
STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
ROWS: list[dict[str, object]] = [
    {"prompt": "sunrise", "seed": seed, "num_inference_steps": 1} for seed in range(3)
]


@pytest.fixture
def farm(ray_cluster: LocalRay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the runs of this process to the test cluster."""
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)


def write(folder: Path, rows: list[dict[str, object]]) -> Path:
    path = folder / "spring.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def render(path: Path, output: Path, *options: str) -> int:
    command = ["render", str(path), "--model", "shapes-wan", "--output", output.as_uri(), *options]
    return main(command, loader=FakeLoader())


def schema(name: str) -> dict[str, object]:
    return json.loads(schema_text(name))


def opened(folder: Path) -> Store:
    return open_store(folder.as_uri(), StoreConfig())


def test_a_run_commits_all_clips_records_its_settings_and_renders_nothing_twice(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, [{**row, "meta": {"take": 2}, "shot": "x"} for row in ROWS])
    carry, prices = "extra_columns=[shot]", ("costs.currency=EUR", "costs.prices={fake: 36000}")
    assert render(path, tmp_path / "out", "workers.count=2", carry, *prices, "--report") == EXIT_OK
    printed = capsys.readouterr().out
    assert "3 of 3 clips, 0 quarantined" in printed
    (line,) = [line for line in printed.splitlines() if "committed 3 clips in" in line]
    assert re.search(r"; \d\.\d+ device-hours, EUR \d+\.\d\d; ", line)
    assert f"Z clips and records are in {(tmp_path / 'out').as_uri()}" in printed
    assert [line for line in printed.splitlines() if not STAMPED.match(line)] == []
    store = opened(tmp_path / "out")
    notes = [read_record(store, one).meta for one in committed_ids(store)]
    assert notes == [{"shot": "x", "take": "2"}] * 3
    (run_folder,) = (tmp_path / "out" / "runs").iterdir()
    document = json.loads((run_folder / "run.json").read_text())
    assert document["config"]["workers"]["count"] == 2
    assert document["manifest"]["name"] == "spring"
    assert len(document["manifest"]["sha256"]) == 64
    assert document["models"][0]["name"] == "shapes-wan"
    assert document["nodes"]
    record = store.get(record_key(min(committed_ids(store))))
    for name in ("run", "status", "summary"):
        jsonschema.validate(json.loads((run_folder / f"{name}.json").read_text()), schema(name))
    jsonschema.validate(json.loads(record), schema("record"))
    summary = json.loads((run_folder / "summary.json").read_text())
    assert (summary["num_committed"], summary["num_quarantined"]) == (3, 0)
    assert {"denoise", "encode", "upload"} <= set(summary["stage_totals_s"])
    clips, stages = (read_table(run_folder / f"{name}.parquet") for name in ("records", "stages"))
    assert set(clips["clip_id"].to_pylist()) == committed_ids(store)
    assert clips["state"].to_pylist() == ["committed"] * 3
    assert stages.num_rows >= 3 * 3
    cost = to_dataclass(RunCost, summary["cost"])
    (of_model,) = cost.models
    assert (of_model.model, of_model.device, cost.wasted_hours) == ("shapes-wan", "fake", 0)
    assert 0 < cost.device_hours * 3600 <= 2 * summary["wall_s"], "two workers"
    assert cost.price == pytest.approx(cost.device_hours * 36_000)
    denoise_s = of_model.stage_hours["denoise"] * 3600
    assert denoise_s == pytest.approx(summary["stage_totals_s"]["denoise"])
    assert of_model.stage_hours["load"] > 0
    index = document_of("index", store.get("report/data/index.js"))
    assert (index["counts"], index["is_running"]) == ({"committed": 3}, False)
    assert index["cost"]["price"] == pytest.approx(cost.price)
    assert main(["status", (tmp_path / "out").as_uri()]) == EXIT_OK
    assert "\n  cost         0." in capsys.readouterr().out
    assert main(["status", (tmp_path / "out").as_uri(), "--watch", "--json"]) == EXIT_OK
    (kind,) = json.loads(capsys.readouterr().out)["kinds"]
    assert (kind["model"], kind["num_clips"], kind["num_committed"]) == ("shapes-wan", 3, 3)
    assert kind["clip_s"] > 0

    assert render(path, tmp_path / "out", carry) == EXIT_OK
    assert "nothing to render: 3 of 3 clips are already in" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "runs").iterdir())) == 1


def test_picks_are_rendered_with_a_new_seed_and_pruned_when_no_manifest_names_them(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, output = write(tmp_path, ROWS), tmp_path / "out"
    assert render(path, output) == EXIT_OK
    store = opened(output)
    first = committed_ids(store)
    capsys.readouterr()
    assert main(["pick", output.as_uri(), "spring-000001", "--seeds", "1"]) == EXIT_OK
    again = tmp_path / "again.jsonl"
    again.write_text(capsys.readouterr().out)
    assert render(again, output) == EXIT_OK
    (new,) = set(committed_ids(store)) - set(first)
    record = read_record(store, new)
    assert (record.name, record.request.sampling.seed) == ("spring-000001-s3", 3)
    prune = ["prune", output.as_uri(), "--keep", str(path), "--model", "shapes-wan", "--delete"]
    assert main([*prune, "--older-than", "0s"]) == EXIT_OK
    assert "removed 1 clip, " in capsys.readouterr().out
    assert set(committed_ids(store)) == set(first)
    assert [key for key in store.keys("") if new in key] == []
    assert main(["verify", output.as_uri(), "--older-than", "1h"]) == EXIT_OK


def test_repair_renders_again_what_records_name_and_is_gone_and_nothing_else(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One MP4 is missing, of another the record names other bytes, and the third one is whole."""
    path, out = write(tmp_path, ROWS), tmp_path / "out"
    assert render(path, out, "workers.count=1") == EXIT_OK
    store = opened(out)
    missing, other, whole = (read_record(store, one) for one in sorted(committed_ids(store)))
    store.delete(missing.key)
    store.delete(other.key)
    sha256 = "0" * 64
    gone = replace(
        other,
        sha256=sha256,
        key=clip_key(other.clip_id, sha256),
        uri=store.uri_of(clip_key(other.clip_id, sha256)),
    )
    store.put(record_key(other.clip_id), gone.to_json(), "application/json")
    capsys.readouterr()
    assert render(path, out) == EXIT_QUARANTINE
    assert "damaged: 2 clips" in capsys.readouterr().out
    assert main(["verify", out.as_uri()]) == EXIT_FINDINGS
    assert render(path, out, "--repair", "workers.count=1") == EXIT_OK
    assert "committed 2 clips" in capsys.readouterr().out
    assert main(["verify", out.as_uri(), "--decode"]) == EXIT_OK
    assert read_record(store, missing.clip_id) == missing, "the same bytes need no other record"
    assert read_record(store, other.clip_id).sha256 == other.sha256
    assert read_record(store, whole.clip_id) == whole
    assert render(path, out, "--repair") == EXIT_OK
    assert "nothing to render" in capsys.readouterr().out


def test_a_failing_clip_is_quarantined_with_its_traceback_and_can_be_tried_again(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, [*ROWS, {"prompt": "error always", "name": "bad-one"}])
    out = tmp_path / "out"
    assert render(path, out) == EXIT_QUARANTINE
    printed = capsys.readouterr().out
    assert "bad-one" in printed
    assert "FakeError: the model did not like it; quarantined" in printed
    assert len(committed_ids(opened(out))) == 3
    (clip_id,) = quarantined_ids(opened(out))
    assert read_quarantine(opened(out), clip_id).name == "bad-one"
    (failure,) = read_failures(opened(out), clip_id)
    assert "Traceback" in failure.traceback
    assert "FakeError" in failure.traceback
    (run_folder,) = (out / "runs").iterdir()
    clips = read_table(run_folder / "records.parquet").to_pylist()
    states = {row["clip_id"]: (row["state"], row["error_type"]) for row in clips}
    assert states.pop(clip_id) == ("quarantined", "FakeError")
    assert list(states.values()) == [("committed", None)] * 3

    assert render(path, out) == EXIT_QUARANTINE
    assert "quarantined: 1 clip;" in capsys.readouterr().out
    assert len(read_failures(opened(out), clip_id)) == 1

    assert render(path, out, "--retry-quarantined") == EXIT_QUARANTINE
    assert len(read_failures(opened(out), clip_id)) == 2
    printed = capsys.readouterr().out
    assert f"no clip was committed to {out.as_uri()}" in printed
    assert "clips and records are in" not in printed


def test_a_run_logs_json_and_notifies_a_webhook_whose_url_stands_nowhere(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")  # as --log-format json sets it
    path = write(tmp_path, [*ROWS, {"prompt": "error always", "name": "bad-one"}])
    out = tmp_path / "out"
    with served(WebhookServer([500])) as server:
        monkeypatch.setenv("NAGFARM_WEBHOOK_URL", server.url)
        settings = ("workers.count=1", "notify.failures=1", "--log-format", "json")
        assert render(path, out, *settings) == EXIT_QUARANTINE
    events = [body["event"] for body in server.bodies]
    assert events == ["started", "started", "failures", "finished"]
    summary = server.bodies[-1]["summary"]
    assert (summary["num_committed"], summary["num_quarantined"]) == (3, 1)
    assert (
        0
        < summary["cost"]["models"][0]["wasted_hours"]["failed"]
        == summary["cost"]["wasted_hours"]
    )
    assert "% wasted (failed 0." in server.bodies[-1]["text"]

    printed = capsys.readouterr()
    entries = [json.loads(line) for line in (printed.out + printed.err).splitlines()]
    (run_id,) = {body["run"] for body in server.bodies}
    begin = next(i for i, entry in enumerate(entries) if entry["event"] == "run_started")
    assert {entry["run"] for entry in entries[begin:]} == {run_id}
    by_event = {entry["event"]: entry for entry in entries}
    assert {"message", "worker_ready", "clip_started", "progress"} <= set(by_event)
    failure = by_event["clip_failed"]
    assert (failure["name"], failure["decision"], failure["attempt"]) == (
        "bad-one",
        "quarantine",
        1,
    )
    assert "FakeError" in failure["traceback"]
    assert failure["node"] == by_event["worker_ready"]["node"] == by_event["clip_committed"]["node"]
    assert by_event["run_finished"]["num_committed"] == 3
    assert by_event["run_finished"]["device_hours"] == round(summary["cost"]["device_hours"], 3)

    secret = SECRET_PATH.encode()
    files = [one.read_bytes() for one in out.rglob("*") if one.is_file()]
    assert len(files) > 10
    assert [content for content in (*files, printed.out.encode()) if secret in content] == []


def test_a_run_renders_only_the_clips_that_an_earlier_run_left(
    farm: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert render(write(tmp_path, ROWS[:2]), tmp_path / "out") == EXIT_OK
    capsys.readouterr()
    assert render(write(tmp_path, ROWS), tmp_path / "out") == EXIT_OK
    assert "done 2, quarantined 0, to render 1" in capsys.readouterr().out


def test_a_run_stopped_by_sigterm_exits_with_4_and_leaves_only_whole_clips(
    ray_cluster: LocalRay, tmp_path: Path
) -> None:
    path = write(
        tmp_path,
        [{"prompt": "a circle", "seed": seed, "num_inference_steps": 30} for seed in range(60)],
    )
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "tests.chaos.harness.driver", "stand-in", "0.01"),
        "render",
        str(path),
        "--model",
        "shapes-wan",
        "--output",
        out.as_uri(),
    ]
    environment = {**os.environ, "RAY_ADDRESS": ray_cluster.address}
    driver = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 200
    while not committed_ids(opened(out)):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    driver.send_signal(signal.SIGTERM)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == EXIT_STOPPED, errors
    assert "nagfarm: stopped: by SIGTERM; run it again to go on" in errors
    done = committed_ids(opened(out))
    assert 0 < len(done) < 60
    assert not quarantined_ids(opened(out))
