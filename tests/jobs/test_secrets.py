"""Secrets in the environment and in errors reach neither the store, the log nor the driver."""

import io
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_REFUSED
from jobs.errors import StoreRefusedError
from jobs.records.commit import (
    committed_ids,
    read_failures,
    write_failure,
    write_quarantine,
    write_run,
)
from jobs.records.keys import RUN_FILE
from jobs.records.schema import FailureRecord, QuarantineRecord
from jobs.redaction import MASK
from jobs.run.observer import RunObserver
from jobs.run.progress.console import ConsoleReport
from jobs.run.progress.tally import RunTally
from jobs.schedule.retry import Decision, Quarantine
from jobs.settings.run_config import RunConfig, StoreConfig
from jobs.store.store import open_store
from jobs.types import ClipDone, ClipFailed, ClipOutcome
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.setup import ModelLoader
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import OnStep
from tests.builders.specs import setup_for, spec
from tests.fakes.model import FakeError, FakeLoader, FakeModel

PLANTED = {
    "AWS_ACCESS_KEY_ID": "PLANTEDKEYID00000001",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+of/the+store0123456789abc",
    "AWS_SESSION_TOKEN": "planted//session+token==",
    "HF_TOKEN": "planted-hub-token",
    "RAY_AUTH_TOKEN": "planted-cluster-token",
    "DATABASE_PASSWORD": "planted 'password' of \"a user\"",
}
LEAKS = {
    **PLANTED,
    "a signed URL": (
        "https://s3/renders/k?X-Amz-Credential=PLANTED&X-Amz-Signature=planted0123456789"
    ),
    "a request": "{'Authorization': b'AWS4-HMAC-SHA256 Credential=x, Signature=planted0123456789'}",
    "a proxy": "http://user:planted-in-url@proxy:3128",
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)


def loading(error: Exception) -> ModelLoader:
    """Return a loader of a model whose denoising raises the error, with an equal cause."""

    class Failing(FakeModel):
        def denoise(
            self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
        ) -> torch.Tensor:
            super().denoise(request, embeddings, on_step)
            cause = FakeError(f"the cause: {error}")
            cause.add_note(f"a note: {error}")
            raise error from cause

    return FakeLoader(Failing)


def render(folder: Path, loader: ModelLoader) -> ClipOutcome:
    worker = ClipWorker(replace(setup_for(folder), loader=loader), "node-1")
    worker.load()
    outcome = worker.render(spec("sunrise"), 1)
    worker.close()
    return outcome


def write_down(folder: Path, failed: ClipFailed) -> str:
    """Write all records of a quarantined clip as a run does, and return its printed lines."""
    store = open_store(folder.as_uri(), StoreConfig())
    printed = io.StringIO()

    def record(failure: ClipFailed, decision: Decision) -> None:
        assert isinstance(decision, Quarantine)
        write_failure(store, FailureRecord.of(failure, "run-1", "2026-01-01T00:00:00.000Z"))
        write_quarantine(
            store,
            QuarantineRecord.of(failure, "run-1", decision.reason, "2026-01-01T00:00:00.000Z"),
        )

    write_run(store, "run-1", RUN_FILE, {"config": asdict(RunConfig())})
    report = ConsoleReport(Console(file=printed, width=1000), 1, 0.0)
    RunObserver(RunTally(1, 0.0), report, record).clip_failed(failed, Quarantine(failed.message))
    return printed.getvalue()


def objects(folder: Path) -> Iterator[bytes]:
    yield from (path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("name", LEAKS)
@pytest.mark.parametrize("kind", [FakeError, StoreRefusedError, KeyError])
def test_no_object_and_no_line_holds_a_secret_of_an_error(
    planted: None, tmp_path: Path, name: str, kind: type[Exception]
) -> None:
    outcome = render(tmp_path, loading(kind(f"cannot send {LEAKS[name]}")))
    assert isinstance(outcome, ClipFailed)
    printed = write_down(tmp_path, outcome)
    (failure,) = read_failures(open_store(tmp_path.as_uri(), StoreConfig()), outcome.clip_id)
    assert MASK in failure.message
    assert failure.traceback.count(MASK) >= 3  # in the error, in its cause and in that one's note
    assert "in denoise" in failure.traceback
    told = [*objects(tmp_path), printed.encode(), pickle.dumps(outcome)]
    assert len(told) == 6  # three records, the root's mark, the console and the outcome
    for content in told:
        assert b"planted" not in content.lower()


def test_a_rendered_clip_and_its_record_hold_nothing_of_the_environment(
    planted: None, tmp_path: Path
) -> None:
    assert isinstance(render(tmp_path, FakeLoader()), ClipDone)
    assert committed_ids(open_store(tmp_path.as_uri(), StoreConfig()))
    for content in objects(tmp_path):
        assert b"planted" not in content.lower()


@pytest.mark.parametrize(
    "arguments",
    [
        ["store.endpoint_url=ftp://user:planted-password@host"],
        ["--output", "s3://renders/x?X-Amz-Signature=planted0123456789"],
        ["--output", "s3://renders/x?token=planted-hub-token"],
        ["--profile", "/nowhere/planted-hub-token.yaml"],
    ],
)
def test_the_command_line_repeats_no_secret_that_it_refuses(
    planted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text("model: shapes-wan\nclips: [{prompt: a circle}]\n")
    assert main(["plan", str(path), *arguments]) == EXIT_REFUSED
    captured = capsys.readouterr()
    assert "planted" not in captured.out + captured.err
    assert MASK in captured.err


def test_an_endpoint_with_a_password_is_refused_and_not_repeated(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor", "store.endpoint_url=http://user:planted-password@host"]) == EXIT_REFUSED
    printed = capsys.readouterr().err
    assert "store.endpoint_url holds a password" in printed
    assert "planted" not in printed


def test_an_unexpected_exception_is_printed_without_secrets(
    planted: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)  # put back after the test
    main(["models"])
    try:
        raise RuntimeError(f"a library says {os.environ['AWS_SECRET_ACCESS_KEY']}")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)
    printed = capsys.readouterr().err
    assert "RuntimeError: a library says [redacted]" in printed
    assert "Traceback" in printed
