"""The entries that a run writes to a log in JSON: their events, keys and levels."""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TextIO, cast

import pytest
from rich.console import Console

from jobs.errors import ModelNotLoadedError
from jobs.json_lines import JsonLines
from jobs.records.schema import WorkerIdentity
from jobs.run.observer import RunObserver
from jobs.run.progress.console import ConsoleReport, bind_run, print_json, print_log
from jobs.run.progress.log_entry import LogEntry, LogEvent
from jobs.run.progress.tally import RunTally
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry, Stop, Wait
from jobs.types import ClipDone, ClipProgress, StageTiming, WorkerHeartbeat
from tests.builders.records import RUN_ID, failed
from tests.builders.specs import spec
from tests.builders.unsafe import UNSAFE, unsafe_characters

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "logs.md").read_text()
GPU = WorkerIdentity("node-a", "0" * 56, "NVIDIA H100", 7)
LABEL = "node-a:7"


@dataclass
class Logged:
    """A run whose log is JSON in memory, and whose clock advances by `step_s` at each reading."""

    step_s: float = 1.0
    file: io.StringIO = field(default_factory=io.StringIO)

    def __post_init__(self) -> None:
        self.console = Console(file=cast("TextIO", JsonLines(self.file, "stdout", {})))
        bind_run(self.console, RUN_ID)
        tally, clock = RunTally(2, 0.0), self._seconds()
        self.observer = RunObserver(
            tally,
            ConsoleReport(self.console, 2, 0.0),
            lambda _failed, _decision: None,
            monotonic=lambda: next(clock),
        )

    def _seconds(self) -> Iterator[float]:
        now = 0.0
        while True:
            now += self.step_s
            yield now

    @property
    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.getvalue().splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        entry = self.entries[-1]
        assert entry.pop("run") == RUN_ID
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry.pop("time"))
        return entry


def test_a_clip_is_followed_from_its_worker_to_its_record() -> None:
    logged = Logged()
    one = spec("sunrise")
    logged.observer.worker_ready(LABEL, GPU)
    assert logged.last == {
        "level": "info",
        "event": "worker_ready",
        "message": "worker node-a:7 is ready on NVIDIA H100",
        "worker": LABEL,
        "node": "node-a",
        "device": "NVIDIA H100",
    }
    logged.observer.clip_started(LABEL, Attempt(one, 2))
    assert logged.last == {
        "level": "info",
        "event": "clip_started",
        "message": f"sunrise-0 ({one.clip_id}) goes to worker node-a:7",
        "clip": one.clip_id,
        "name": "sunrise-0",
        "attempt": 2,
        "worker": LABEL,
        "node": "node-a",
        "model": one.model.name,
        "num_steps": 2,
    }
    timings = (
        StageTiming("denoise", 0.0, 2.0, 0),
        StageTiming("denoise", 0.0, 2.5, 1),
        StageTiming("upload", 0.0, 1.0),
    )
    logged.observer.clip_done(ClipDone(one.clip_id, one.name, 2, timings))
    committed, progress = logged.entries[-2:]
    assert committed["event"] == "clip_committed"
    assert committed["stages_s"] == {"denoise": 4.5, "upload": 1.0}
    assert (committed["clip"], committed["attempt"]) == (one.clip_id, 2)
    assert (committed["worker"], committed["node"]) == (LABEL, "node-a")
    assert progress["event"] == "progress"
    assert (progress["num_committed"], progress["num_clips"]) == (1, 2)
    assert progress["message"].startswith("1 of 2 clips, 0 quarantined")


@pytest.mark.parametrize(
    ("decision", "name", "level"),
    [
        (Retry(3), "retry", "warning"),
        (Wait(3), "wait", "warning"),
        (Quarantine("enough"), "quarantine", "error"),
        (Stop("no"), "stop", "error"),
    ],
)
def test_a_failure_names_its_stage_decision_and_traceback(
    decision: Decision, name: str, level: str
) -> None:
    logged = Logged()
    one = spec("sunrise")
    logged.observer.worker_ready("host-a:7", replace(GPU, host="host-a"))
    logged.observer.clip_started("host-a:7", Attempt(one))
    logged.observer.worker_heartbeat(
        "host-a:7", WorkerHeartbeat((ClipProgress(one.clip_id, "decode", None, 3.0),), 1_000)
    )
    traceback = "Traceback (most recent call last):\n  File\nOutOfMemoryError: no"
    failure = replace(failed(one.clip_id, "no\nmore"), name=one.name, traceback=traceback)
    logged.observer.clip_failed(failure, decision)
    entry = next(entry for entry in logged.entries if entry["event"] == "clip_failed")
    assert (entry["level"], entry["decision"], entry["stage"]) == (level, name, "decode")
    assert (entry["clip"], entry["name"], entry["attempt"]) == (one.clip_id, one.name, 1)
    assert (entry["worker"], entry["node"]) == ("host-a:7", "host-a")
    assert (entry["error_type"], entry["traceback"]) == ("OutOfMemoryError", traceback)
    assert "OutOfMemoryError: no; " in entry["message"]


def test_the_stage_of_a_clip_outlives_its_worker() -> None:
    logged = Logged()
    one = spec("sunrise")
    logged.observer.worker_ready("host-a:7", replace(GPU, host="host-a"))
    logged.observer.clip_started("host-a:7", Attempt(one))
    logged.observer.worker_heartbeat(
        "host-a:7", WorkerHeartbeat((ClipProgress(one.clip_id, "upload", None, 3.0),), 1_000)
    )
    logged.observer.worker_stopped("host-a:7", "killed", is_ready=True, is_lost=True)
    logged.observer.clip_failed(failed(one.clip_id), Retry(2))
    assert (logged.last["stage"], logged.last["node"]) == ("upload", "host-a")


def test_the_stage_of_a_failure_is_the_last_one_that_was_timed() -> None:
    logged = Logged()
    timings = (StageTiming("text", 0.0, 1.0), StageTiming("encode", 0.0, 1.0))
    logged.observer.clip_failed(replace(failed("0" * 32), timings=timings), Retry(2))
    assert logged.last["stage"] == "encode"


def test_workers_that_stop_and_models_that_fail_have_events_of_their_own() -> None:
    logged = Logged()
    logged.observer.worker_ready(LABEL, GPU)
    logged.observer.worker_stopped(LABEL, "killed", is_ready=True, is_lost=True)
    assert (logged.last["event"], logged.last["level"]) == ("worker_lost", "warning")
    assert logged.last["node"] == "node-a"
    logged.observer.worker_stopped(LABEL, "recycled", is_ready=True, is_lost=False)
    assert (logged.last["event"], logged.last["level"]) == ("worker_replaced", "info")
    logged.observer.model_failed("wan", ModelNotLoadedError("no weights"))
    assert (logged.last["event"], logged.last["level"]) == ("model_stopped", "error")
    assert (logged.last["model"], logged.last["error_type"]) == ("wan", "ModelNotLoadedError")
    logged.observer.workers_waiting("2 devices, held by other jobs")
    assert logged.last["event"] == "workers_waiting"


def test_clips_in_flight_have_an_entry_each() -> None:
    logged = Logged(step_s=70.0)
    one, other = spec("sunrise"), spec("sunset")
    logged.observer.clip_started(LABEL, Attempt(one))
    logged.observer.clip_started(LABEL, Attempt(other))
    logged.observer.worker_heartbeat(
        LABEL, WorkerHeartbeat((ClipProgress(one.clip_id, "denoise", 1, 3.0),), 1_000)
    )
    logged.observer.tick()
    line, first, second = logged.entries[-3:]
    assert (line["event"], line["num_clips"]) == ("clips_in_flight", 2)
    assert (first["event"], first["clip"]) == ("clip_in_flight", one.clip_id)
    assert (first["stage"], first["step"], first["num_steps"]) == ("denoise", 0, 2)
    assert (second["stage"], second["running_s"]) == ("queue", 70.0)


def test_no_strangers_text_begins_a_line_or_is_unsafe() -> None:
    logged = Logged()
    attempt = Attempt(replace(spec("a"), name=UNSAFE), 1)
    identity = WorkerIdentity(UNSAFE, UNSAFE, UNSAFE, 1)
    logged.observer.worker_ready(UNSAFE, identity)
    logged.observer.clip_started(UNSAFE, attempt)
    hostile = replace(failed("0" * 32, UNSAFE), name=UNSAFE, traceback=UNSAFE)
    logged.observer.clip_failed(hostile, Retry(2))
    print_log(logged.console, UNSAFE)
    assert len(logged.entries) == 4
    assert unsafe_characters(logged.file.getvalue()) == set()


def test_a_document_is_not_put_into_an_entry_and_an_empty_line_is_none() -> None:
    logged = Logged()
    print_log(logged.console, "")
    assert logged.entries == []
    print_json(logged.console, '{"findings": []}')
    assert logged.file.getvalue() == '{"findings": []}\n'


def test_the_page_lists_every_key_and_every_event_with_its_meaning() -> None:
    tables = [
        dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", part, re.MULTILINE))
        for part in PAGE.split("## Events")
    ]
    keys = {one.name for one in fields(LogEntry)} | {"time", "run", "exit_code", "stream"}
    assert set(tables[0]) == keys
    assert tables[1] == {event.value: event.meaning for event in LogEvent}
