"""`nagfarm verify`: its text, its JSON and its exit codes."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_FINDINGS
from jobs.ending import ExitCode
from jobs.errors import StoreUnavailableError
from jobs.records.keys import (
    RUN_FILE,
    clip_key,
    failure_key,
    lease_key,
    quarantine_key,
    record_key,
    run_key,
)
from jobs.records.lease import Lease
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.records import commit
from tests.builders.specs import spec

CIRCLE = spec("circle")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an output with one committed clip."""
    opened = open_store((tmp_path / "out").as_uri(), StoreConfig())
    commit(opened, CIRCLE)
    return opened


def verified(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["verify", *arguments])
    return code, capsys.readouterr().out


def verified_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, Any]:
    code, out = verified(capsys, *arguments, "--json")
    return code, json.loads(out)


def test_a_clean_output_ends_with_0(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert verified(capsys, store.uri) == (
        0,
        "1 clip committed, 0 quarantined, 0.0 MB read: 0 findings\n",
    )
    code, document = verified_json(capsys, store.uri)
    assert code == 0
    assert document == {
        "uri": store.uri,
        "run_under_way": None,
        "findings": [],
        "decoded": False,
        "num_committed": 1,
        "num_quarantined": 0,
        "num_bytes": len(b"video"),
        "num_young": 0,
        "num_findings": 0,
    }


def test_the_json_without_a_finding_is_one_line_and_else_a_finding_a_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out = verified(capsys, store.uri, "--json")
    assert '"findings": [], "decoded": false' in out
    assert out.count("\n") == 1
    for number in range(3):
        store.put(record_key(f"{number:032}"), b"{}", "application/json")
    _, out = verified(capsys, store.uri, "--json")
    head, *findings, tail = out.splitlines()
    assert head.endswith('"findings": [')
    assert [json.loads(line.removeprefix(","))["kind"] for line in findings] == ["unreadable"] * 3
    assert tail.startswith('], "decoded": false')


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--manifest",)])
def test_an_output_without_any_run_is_refused_with_2(
    store: Store,
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    manifest = tmp_path / "spring.yaml"
    manifest.write_text(
        "model: shapes-wan\nclips: [{name: first, prompt: a circle moving right}]\n"
    )
    if "--manifest" in arguments:
        arguments = (*arguments, str(manifest))
    (tmp_path / "out-typo").mkdir()
    mistyped = open_store(f"{store.uri}-typo", StoreConfig())
    for _ in range(2):
        assert main(["verify", mistyped.uri, *arguments]) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err == (
            f"nagfarm: {mistyped.uri}: expected the output of a run, got no object of any run; "
            "correct the URI, which `nagfarm render` prints\n"
        )
        Lease.take(mistyped, "run-1", 60).release()  # not yet a run's object


@pytest.mark.parametrize(
    "key",
    [
        run_key("run-1", RUN_FILE),
        clip_key("1" * 32, "f" * 64),
        failure_key("1" * 32, "run-1", 1),
        quarantine_key("1" * 32),
        record_key("1" * 32),
    ],
)
def test_one_object_of_a_run_is_enough_to_be_audited(
    key: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    begun = open_store((tmp_path / "begun").as_uri(), StoreConfig())
    begun.put(key, b"", "application/json")
    code, out = verified(capsys, begun.uri)
    assert code in (0, EXIT_FINDINGS)
    assert "clips committed" in out or "clip committed" in out


def test_findings_end_with_3(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.put(record_key("0" * 32), b"{}", "application/json")
    store.put(clip_key("1" * 32, "f" * 64), b"other", "video/mp4")
    code, out = verified(capsys, store.uri, "--older-than", "0s")
    assert code == EXIT_FINDINGS
    assert f"unreadable: records/{'0' * 32}.json: " in out
    assert f"orphan: clips/{'1' * 32}/" in out
    assert out.endswith(": 2 findings\n")
    code, document = verified_json(capsys, store.uri, "--older-than", "0s")
    assert code == EXIT_FINDINGS
    assert [finding["kind"] for finding in document["findings"]] == ["unreadable", "orphan"]
    assert document["num_findings"] == 2


def test_a_young_object_without_a_record_is_no_finding(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put(clip_key("1" * 32, "f" * 64), b"other", "video/mp4")
    code, out = verified(capsys, store.uri)
    assert code == 0
    assert "1 object without a record, younger than 24h: in flight, not orphans" in out


def test_a_manifest_shows_clips_that_are_lost_or_unplanned(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    manifest = tmp_path / "spring.yaml"
    manifest.write_text(
        "model: shapes-wan\nclips: [{name: first, prompt: a circle moving right}]\n"
    )
    code, document = verified_json(capsys, store.uri, "--manifest", str(manifest))
    assert code == EXIT_FINDINGS
    assert {finding["kind"] for finding in document["findings"]} == {"lost", "unplanned"}
    assert any("first (" in finding["message"] for finding in document["findings"])


def test_decoding_finds_an_mp4_that_does_not_decode(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = verified(capsys, store.uri, "--decode")
    assert code == EXIT_FINDINGS
    assert "undecodable: clips/" in out


def test_a_run_under_way_is_named_and_its_uploads_are_spared(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = Lease.take(store, "run-1", 60)
    code, out = verified(capsys, store.uri)
    assert code == 0
    assert f"a run is under way on {store.uri}: run run-1 on " in out
    _, document = verified_json(capsys, store.uri)
    assert document["run_under_way"].startswith("run run-1 on ")
    assert main(["verify", store.uri, "--older-than", "59m"]) == 2
    assert "expected at least 1h while a run is under way" in capsys.readouterr().err
    lease.release()
    assert verified(capsys, store.uri, "--older-than", "59m")[0] == 0


def test_a_lease_that_cannot_be_read_is_a_finding(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.put(lease_key(1), b"{}", "application/json")
    code, out = verified(capsys, store.uri)
    assert code == EXIT_FINDINGS
    assert out.startswith("unreadable: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["http://nowhere"], "expected s3://bucket/prefix, file:///folder or a folder"),
        (["nowhere"], "nowhere is not a folder on this machine"),
        (["file:///tmp/x", "--older-than", "soon"], "--older-than"),
        (["file:///tmp/x", "--manifest", "/no/such.yaml"], "such.yaml"),
    ],
)
def test_a_wrong_option_is_refused_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_store_that_does_not_answer_ends_with_69(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise StoreUnavailableError("no answer from the endpoint")

    monkeypatch.setattr("jobs.store.folder_store.FolderStore.entries", refuse)
    assert main(["verify", store.uri]) == ExitCode.UNAVAILABLE
    assert "no answer from the endpoint" in capsys.readouterr().err


def test_verify_changes_nothing(
    store: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def state() -> dict[str, float]:
        return {str(path): path.stat().st_mtime for path in (tmp_path / "out").rglob("*")}

    before = state()
    time.sleep(0.01)
    verified(capsys, store.uri, "--decode")
    assert state() == before
