import io
import re
from collections.abc import Iterator

from rich.console import Console

from jobs.run.progress import RunProgress
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry
from jobs.types import ClipDone, ClipFailed, ClipProgress, StageTiming, WorkerHeartbeat
from tests.builders.specs import spec


def done(number: int) -> ClipDone:
    timings = (StageTiming("denoise", 0.0, 2.0, 0), StageTiming("upload", 0.0, 1.0))
    return ClipDone(f"{number:032x}", f"clip-{number}", "uri", 1, timings)


def failed(message: str) -> ClipFailed:
    return ClipFailed("f" * 32, "clip-bad", 2, "code", False, "SomeError", message, "", "host:1")


def seconds(step: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += step


def progress(
    num_clips: int, step_s: float = 1.0, *, is_terminal: bool = False
) -> tuple[RunProgress, io.StringIO, list]:
    file, told = io.StringIO(), list[tuple[ClipFailed, Decision]]()
    clock = seconds(step_s)
    console = Console(file=file, force_terminal=is_terminal, width=60)
    made = RunProgress(
        num_clips,
        console,
        lambda failure, decision: told.append((failure, decision)),
        monotonic=lambda: next(clock),
    )
    return made, file, told


def test_a_log_gets_the_first_and_the_last_clip_and_a_line_every_ten_seconds() -> None:
    follow, file, _ = progress(50)
    for number in range(50):
        follow.clip_done(done(number))
    lines = file.getvalue().splitlines()
    assert lines[0] == "1 of 50 clips, 0 given up, 1 s gone"
    assert re.fullmatch(r"\d+ of 50 clips, 0 given up, \d+ s gone, about \d+ s left", lines[1])
    assert lines[-1].startswith("50 of 50 clips")
    assert 5 <= len(lines) <= 8


def test_failures_are_told_at_once_and_handed_on() -> None:
    follow, file, told = progress(2)
    follow.clip_failed(failed("no\nsecond line"), Retry(3))
    follow.clip_failed(failed("no"), Quarantine("enough"))
    first, second, third = file.getvalue().splitlines()
    assert first.endswith("failed in attempt 2: SomeError: no; will be tried again")
    assert second.endswith("SomeError: no; given up")
    assert third.startswith("1 of 2 clips, 1 given up")
    assert [decision for _, decision in told] == [Retry(3), Quarantine("enough")]
    assert (follow.num_failures, follow.num_quarantined, follow.num_committed) == (2, 1, 0)


def test_what_strangers_wrote_is_not_taken_for_markup() -> None:
    follow, file, _ = progress(1)
    follow.clip_failed(failed("[red]x[/red] [link=file:///etc]y[/link]"), Retry(2))
    assert "[red]x[/red] [link=file:///etc]y[/link]" in file.getvalue()


def test_seconds_are_added_up_by_stage() -> None:
    follow, _, _ = progress(2)
    follow.clip_done(done(0))
    follow.clip_done(done(1))
    assert follow.stage_totals_s == {"denoise": 4.0, "upload": 2.0}


def test_a_terminal_gets_a_bar_and_no_lines_for_clips() -> None:
    follow, file, _ = progress(2, is_terminal=True)
    with follow:
        follow.worker_ready("host:1", "cpu")
        follow.clip_done(done(0))
        follow.clip_done(done(1))
    written = file.getvalue()
    assert "2/2" in written
    assert "of 2 clips" not in written


def test_a_log_says_every_minute_what_is_in_flight() -> None:
    follow, file, _ = progress(2, step_s=25.0)
    one = spec("sunrise")
    follow.clip_started("host:1", Attempt(one))
    for _ in range(4):
        follow.worker_heartbeat(
            WorkerHeartbeat((ClipProgress(one.clip_id, "denoise", 1, 3.0),), 1_000)
        )
        follow.turn()
    lines = [line for line in file.getvalue().splitlines() if line.startswith("in flight: ")]
    assert lines
    assert "in flight: sunrise-0 (denoise, step 1 of 2, " in lines[0]
    assert lines[0].endswith(" s, host:1)")
    assert len(lines) < 4


def test_what_a_lost_worker_had_is_no_longer_in_flight() -> None:
    follow, _, _ = progress(2)
    follow.worker_ready("host:1", "cpu")
    follow.clip_started("host:1", Attempt(spec("one")))
    follow.clip_started("host:2", Attempt(spec("two")))
    follow.worker_stopped("host:1", "killed", is_ready=True, is_lost=True)
    assert [clip.name for clip in follow.in_flight.clips()] == ["two-0"]
    assert (follow.num_workers, follow.num_workers_lost) == (0, 1)


def test_a_worker_that_is_recycled_is_not_counted_as_lost() -> None:
    follow, file, _ = progress(2)
    follow.worker_ready("host:1", "cpu")
    follow.worker_stopped("host:1", "recycled after 5 clips", is_ready=True, is_lost=False)
    assert follow.num_workers_lost == 0
    assert file.getvalue().endswith("replaced worker host:1: recycled after 5 clips\n")
