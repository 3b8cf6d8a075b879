"""--log-format and its variable, through the command line: every line is JSON, the result stays."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.main import COMMANDS, main
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, EXIT_REFUSED
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.records import RUN_ID, commit
from tests.builders.specs import spec

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "0")  # as --log-format json sets it
    monkeypatch.delenv("NAGFARM_LOG_FORMAT", raising=False)
    for name in ("stdout", "stderr", "excepthook"):
        monkeypatch.setattr(sys, name, getattr(sys, name))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The output of a run with one whole clip and one whose MP4 is gone."""
    store = open_store(tmp_path.as_uri(), StoreConfig())
    write_run(store, RUN_ID, RUN_FILE, {})
    commit(store, spec("sunrise"))
    store.delete(commit(store, spec("sunset"), b"gone").key)
    return tmp_path


def entries(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_commands_that_may_take_long_have_the_option() -> None:
    named = {name for name, command in COMMANDS.items() if command.is_run or command.has_log}
    reading = {"verify", "export", "records", "report", "score"}
    assert named == {"render", "bench", "gc", "prune", *reading}


def test_gc_and_verify_say_the_same_in_json(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("gc", "verify"):
        code = main([command, output.as_uri()])
        text = capsys.readouterr().out.splitlines()
        assert main([command, output.as_uri(), "--log-format", "json"]) == code
        found = entries(capsys.readouterr().out)
        assert [entry["message"] for entry in found] == text
        monkeypatch.setenv("NAGFARM_LOG_FORMAT", "json")
        main([command, output.as_uri()])
        assert [entry["message"] for entry in entries(capsys.readouterr().out)] == text
        assert main([command, output.as_uri(), "--log-format", "text"]) == code
        assert capsys.readouterr().out.splitlines() == text
        monkeypatch.delenv("NAGFARM_LOG_FORMAT")


def test_the_document_of_verify_stays_one(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", output.as_uri(), "--json"]) == EXIT_FINDINGS
    document = capsys.readouterr().out
    assert main(["verify", output.as_uri(), "--json", "--log-format", "json"]) == EXIT_FINDINGS
    assert capsys.readouterr().out == document


def test_a_variable_with_another_word_is_refused_where_it_matters(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAGFARM_LOG_FORMAT", "xml")
    assert main(["gc", output.as_uri()]) == EXIT_REFUSED
    assert capsys.readouterr().err == (
        "nagfarm: NAGFARM_LOG_FORMAT: expected text or json, got 'xml'\n"
    )
    assert main(["status", output.as_uri()]) == EXIT_OK


def test_a_refusal_is_one_object_with_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = (tmp_path / "a\x1b[2J\nb.yaml").as_posix()
    assert main(["render", missing, "--log-format", "json"]) == EXIT_REFUSED
    (entry,) = entries(capsys.readouterr().err)
    assert (entry["level"], entry["event"], entry["exit_code"]) == ("error", "refused", 2)
    assert "b.yaml" in entry["message"]


def test_an_exception_that_no_code_expected_is_one_object_without_secrets(
    output: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_PASSWORD", "planted-password")
    main(["gc", output.as_uri(), "--log-format", "json"])
    capsys.readouterr()
    try:
        raise RuntimeError("a library says\nplanted-password")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    (entry,) = entries(capsys.readouterr().err)
    assert (entry["level"], entry["event"]) == ("error", "exception")
    assert entry["message"] == "RuntimeError: a library says\n[redacted]"
    assert entry["traceback"].startswith("Traceback (most recent call last):\n")
    assert "planted" not in entry["traceback"]


def test_a_process_that_ends_at_once_says_so_in_its_format() -> None:
    script = """
from jobs.ending import ExitCode, end_process
from jobs.json_lines import write_json_lines
write_json_lines()
end_process("stopped: the cluster is gone", ExitCode.STOPPED)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    (entry,) = entries(ended.stderr)
    assert ended.returncode == 4
    assert (entry["event"], entry["exit_code"]) == ("stopped", 4)
    assert entry["message"] == "stopped: the cluster is gone"
