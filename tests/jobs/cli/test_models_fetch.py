"""`nagfarm models --fetch`: its refusals and its exit codes."""

import socket
from pathlib import Path

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED
from jobs.ending import ExitCode


def test_only_known_models_are_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--fetch"]) == EXIT_OK
    assert main(["models", "--fetch", "shapes-wan"]) == EXIT_OK
    assert "shapes-wan: here and complete, revision sha256:" in capsys.readouterr().out
    assert main(["models", "--fetch", "shapes-wan", "shapes-wam"]) == EXIT_REFUSED
    printed = capsys.readouterr()
    assert "did you mean" in printed.err
    assert printed.out == ""


def test_a_hub_that_does_not_answer_may_be_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    assert main(["models", "--fetch", "wan2.1-t2v-1.3b"]) == ExitCode.UNAVAILABLE
    assert "cannot be downloaded" in capsys.readouterr().err
