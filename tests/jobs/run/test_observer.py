"""A run's counts, log lines and progress bar, from the events of the dispatcher."""

import io
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from rich.console import Console

from jobs.costs.device_ledger import DevicesFreed, DevicesHeld, DevicesReady
from jobs.records.run_status import LoadingWorkers
from jobs.records.schema import WorkerIdentity
from jobs.run.observer import RunObserver
from jobs.run.progress.console import ConsoleReport
from jobs.run.progress.kind_tally import PlannedKind, kind_of
from jobs.run.progress.loads import loads_at
from jobs.run.progress.tally import RunTally
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry
from jobs.types import ClipDone, ClipFailed, ClipProgress, StageTiming, WorkerHeartbeat
from pipelines.device_marks import DeviceTime
from pipelines.load_progress import LoadPosition
from tests.builders.records import AT_S
from tests.builders.specs import spec

IDENTITY = WorkerIdentity("host", "node", "cpu", 1)
STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (?P<text>.*)")


def done(number: int) -> ClipDone:
    timings = (StageTiming("denoise", 0.0, 2.0, 0), StageTiming("upload", 0.0, 1.0))
    return ClipDone(f"{number:032x}", f"clip-{number}", 1, timings)


def failed(message: str) -> ClipFailed:
    return ClipFailed(
        clip_id="f" * 32,
        name="clip-bad",
        attempt=2,
        failure_class="code",
        may_pass_on_retry=False,
        error_type="SomeError",
        message=message,
        traceback="",
        worker="host:1",
    )


def seconds(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


@dataclass
class Watched:
    """An observer whose clock advances by `step_s` at each reading, and all that it writes to."""

    num_clips: int
    step_s: float = 1.0
    is_terminal: bool = False
    file: io.StringIO = field(default_factory=io.StringIO)
    failures: list[tuple[ClipFailed, Decision]] = field(default_factory=list)

    def __post_init__(self) -> None:
        clock = seconds(self.step_s)
        console = Console(file=self.file, force_terminal=self.is_terminal, width=60)
        started = next(clock)
        kinds = [PlannedKind(kind_of(spec("any")), self.num_clips)]
        self.tally = RunTally(self.num_clips, started, kinds)
        self.report = ConsoleReport(console, self.num_clips, started)
        self.observer = RunObserver(
            self.tally,
            self.report,
            lambda failure, decision: self.failures.append((failure, decision)),
            monotonic=lambda: next(clock),
        )

    @property
    def lines(self) -> list[str]:
        """The lines without their times."""
        split = [STAMPED.fullmatch(line) for line in self.file.getvalue().splitlines()]
        return [found["text"] for found in split if found is not None]


def test_a_log_gets_the_first_and_the_last_clip_and_a_line_every_ten_seconds() -> None:
    watched = Watched(50)
    watched.tally.worker_ready()
    for number in range(50):
        one = spec(f"clip {number}")
        watched.observer.clip_started("host:1", Attempt(one))
        watched.observer.clip_done(replace(done(number), clip_id=one.clip_id))
    lines = watched.lines
    assert lines[0] == "1 of 50 clips, 0 quarantined, 2 s elapsed"
    assert re.fullmatch(
        r"\d+ of 50 clips, 0 quarantined, \d+ s elapsed, about \d+ s left", lines[1]
    )
    assert lines[-1] == "50 of 50 clips, 0 quarantined, 100 s elapsed"
    assert 10 <= len(lines) <= 12


def test_each_line_begins_with_the_date_and_the_time_in_utc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "time", lambda: AT_S + 3_661.9)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    watched = Watched(1)
    watched.observer.worker_ready("host:1", IDENTITY)
    monkeypatch.undo()
    time.tzset()
    assert watched.file.getvalue() == "2026-01-31T13:01:01Z worker host:1 is ready on cpu\n"


def test_failures_are_logged_at_once_and_passed_on() -> None:
    watched = Watched(2)
    watched.observer.clip_failed(failed("no\nsecond line"), Retry(3))
    watched.observer.clip_failed(failed("no"), Quarantine("enough"))
    first, second, third = watched.lines
    assert first.endswith("failed in attempt 2: SomeError: no; will be tried again")
    assert second.endswith("SomeError: no; quarantined")
    assert third.startswith("1 of 2 clips, 1 quarantined")
    assert [decision for _, decision in watched.failures] == [Retry(3), Quarantine("enough")]
    tally = watched.tally
    assert (tally.num_failures, tally.num_quarantined, tally.num_committed) == (2, 1, 0)


def test_error_messages_are_not_taken_for_markup() -> None:
    watched = Watched(1)
    watched.observer.clip_failed(failed("[red]x[/red] [link=file:///etc]y[/link]"), Retry(2))
    assert "[red]x[/red] [link=file:///etc]y[/link]" in watched.file.getvalue()


def test_seconds_are_added_up_by_stage() -> None:
    tally = RunTally(2, 0.0)
    tally.clip_done(done(0), 1.0)
    tally.clip_done(done(1), 2.0)
    assert tally.stage_totals_s == {"denoise": 4.0, "upload": 2.0}


def test_the_busy_share_is_that_of_all_devices_together() -> None:
    tally = RunTally(3, 0.0)
    assert tally.device_time.busy_share is None
    for number, device_time in enumerate([DeviceTime(6.0, 0.0), None, DeviceTime(3.0, 1.0)]):
        tally.clip_done(replace(done(number), device_time=device_time), 1.0)
    assert tally.device_time.busy_share == 0.9


def test_a_run_without_a_worker_has_no_estimate() -> None:
    specs = [spec(f"clip {number}") for number in range(6)]
    tally = RunTally(6, 0.0, [PlannedKind(kind_of(specs[0]), 6)])
    tally.worker_ready()
    for number, one in enumerate(specs[:5]):
        tally.clip_started("host:1", Attempt(one), 10.0 * number)
        tally.clip_done(replace(done(number), clip_id=one.clip_id), 10.0 * number + 10)
    assert tally.left_s() == pytest.approx(10.0)
    tally.worker_stopped("host:1", is_ready=True, is_lost=True)
    assert tally.left_s() is None
    assert tally.elapsed_s(110.0) == 110.0


def test_a_terminal_gets_a_bar_and_no_lines_for_clips() -> None:
    watched = Watched(2, is_terminal=True)
    with watched.report:
        watched.observer.worker_ready("host:1", IDENTITY)
        watched.observer.clip_done(done(0))
        watched.observer.clip_done(done(1))
    written = watched.file.getvalue()
    assert "2/2" in written
    assert "of 2 clips" not in written


def test_a_log_names_the_clips_in_flight_every_minute() -> None:
    watched = Watched(2, step_s=25.0)
    one = spec("sunrise")
    watched.observer.clip_started("host:1", Attempt(one))
    for _ in range(4):
        watched.observer.worker_heartbeat(
            "host:1", WorkerHeartbeat((ClipProgress(one.clip_id, "denoise", 1, 3.0),), 1_000)
        )
        watched.observer.tick()
    lines = [line for line in watched.lines if line.startswith("in flight: ")]
    assert lines
    assert "in flight: sunrise-0 (denoise, step 1 of 2, " in lines[0]
    assert lines[0].endswith(" s, host:1)")
    assert len(lines) < 4


def test_the_clips_of_a_lost_worker_are_no_longer_in_flight() -> None:
    watched = Watched(2)
    watched.observer.worker_ready("host:1", IDENTITY)
    watched.observer.clip_started("host:1", Attempt(spec("one")))
    watched.observer.clip_started("host:2", Attempt(spec("two")))
    watched.observer.worker_stopped("host:1", "killed", is_ready=True, is_lost=True)
    assert [clip.name for clip in watched.tally.in_flight.clips(9.0)] == ["two-0"]
    assert (watched.tally.num_workers, watched.tally.num_workers_lost) == (0, 1)


def test_a_worker_that_is_recycled_is_not_counted_as_lost() -> None:
    watched = Watched(2)
    watched.observer.worker_ready("host:1", IDENTITY)
    watched.observer.worker_stopped(
        "host:1", "recycled after 5 clips", is_ready=True, is_lost=False
    )
    assert watched.tally.num_workers_lost == 0
    assert watched.file.getvalue().endswith("replaced worker host:1: recycled after 5 clips\n")


def test_the_log_says_once_for_which_devices_workers_wait_and_again_with_the_clips_in_flight() -> (
    None
):
    watched = Watched(2, step_s=70.0)
    for devices in ("2 devices, held by other jobs", "2 devices, held by other jobs"):
        watched.observer.workers_waiting(devices)
    assert watched.lines == ["waiting for 2 devices, held by other jobs"]
    watched.observer.tick()
    assert watched.lines[-1] == "in flight: nothing; waiting for 2 devices, held by other jobs"
    watched.observer.workers_waiting(None)
    watched.observer.tick()
    assert watched.lines[-1] == "in flight: nothing"


def test_the_log_says_how_far_the_loading_is_until_a_worker_is_ready() -> None:
    watched = Watched(2, step_s=6.0)
    position = LoadPosition(("verify",), 0.4)
    for _ in range(4):  # after 6, 12, 18 and 24 s
        watched.observer.workers_loading([position, replace(position, verified=0.6)])
        watched.observer.tick()
    assert watched.lines == 2 * ["loading: 2 workers (verifying weights, 40 %)"]
    watched.observer.worker_ready("host:1", IDENTITY)
    for _ in range(4):
        watched.observer.workers_loading([position])
        watched.observer.tick()
    assert watched.lines[2:] == ["worker host:1 is ready on cpu"]
    assert watched.tally.loading == (LoadingWorkers(("verify",), 1, 0.4),)


def test_a_terminal_shows_how_far_the_loading_is_beside_its_bar() -> None:
    watched = Watched(2, is_terminal=True)
    with watched.report:
        watched.observer.workers_loading([LoadPosition(("read",), 1.0)])
        watched.observer.tick()
    assert "loading: 1 worker (reading weights)" in watched.file.getvalue()


def test_workers_at_the_same_parts_are_counted_together() -> None:
    positions = [LoadPosition(("import",), share / 10) for share in range(1, 4)]
    assert loads_at([LoadPosition(), *positions]) == (
        LoadingWorkers(("import",), 3, 0.1),
        LoadingWorkers((), 1, 0.0),
    )
    assert loads_at([]) == ()


def test_the_devices_of_a_run_are_counted_with_the_clips_that_waste_them() -> None:
    watched, one = Watched(2), spec("one")
    for event in (DevicesHeld((0, 0), "fake", 2.0), DevicesReady((0, 0), "host:1", "cpu")):
        watched.observer.devices_changed(event)  # a second each
    watched.observer.clip_started("host:1", Attempt(one))
    watched.observer.clip_done(replace(done(0), clip_id=one.clip_id, was_already_committed=True))
    watched.observer.clip_started("host:1", Attempt(one))
    watched.observer.clip_returned(one.clip_id)
    watched.observer.clip_started("host:1", Attempt(one))
    waits = (StageTiming("queue", 0.0, 0.0),)
    failure = replace(failed("no"), clip_id=one.clip_id, timings=waits)
    watched.observer.clip_failed(failure, Retry(2))
    watched.observer.devices_changed(DevicesFreed((0, 0), is_lost=True))
    (row,) = watched.tally.ledger.cost(100.0).models
    hours = {**row.stage_hours, **row.wasted_hours}
    assert {name: round(value * 3600) for name, value in hours.items()} == {
        "load": 2, "repeated": 4, "failed": 2, "idle": 6,
    }  # fmt: skip
