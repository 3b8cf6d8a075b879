"""A watched run: what is shown on a terminal, in a pipe and as JSON, and when the watch ends."""

import dataclasses
import io
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jobs.cli.main import main
from jobs.ending import ExitCode
from jobs.errors import StoreUnavailableError
from jobs.records.commit import write_run
from jobs.records.lease_record import LeaseRecord
from jobs.records.run_status import FailureSeen, RunState, RunStatus, RunStop, write_status
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.watch import watch as module
from jobs.watch.frame import frame
from jobs.watch.lines import JsonScreen, LineScreen
from jobs.watch.seen import DEAD_AFTER_S, Seen, end_of, read_seen
from jobs.watch.watch import Moment, Screen, Trouble, View, follow, reading
from tests.builders.records import AT_S, RUN_ID
from tests.fakes.store import MemoryStore
from tests.jobs.cli.test_status import lease_of, status_of

NEXT_RUN = "20260201-120000-abcdef"
URI = "s3://renders/spring"


def seen(
    run: RunStatus | None = None, at_s: float = AT_S + 5, lease: LeaseRecord | None = None
) -> Seen:
    return Seen(URI, run.run_id if run else None, run, AT_S, lease or lease_of(), at_s)


def ended(state: RunState, **changes: object) -> RunStatus:
    return dataclasses.replace(status_of(state), **changes)


# the end of a run


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (ended("finished", num_clips=30, num_committed=20, num_quarantined=0), ExitCode.OK),
        (ended("finished", num_clips=31, num_committed=20), ExitCode.UNFINISHED),
        (ended("stopped", stop=RunStop("StoppedError", "by SIGTERM")), ExitCode.STOPPED),
        (ended("stopped", stop=RunStop("DeadlineReachedError", "by 8:00")), ExitCode.DEADLINE),
        (ended("stopped"), ExitCode.STOPPED),
    ],
)
def test_a_watch_ends_with_the_exit_code_of_the_run(run: RunStatus, code: ExitCode) -> None:
    end = end_of(seen(run), AT_S + 5)
    assert end is not None
    assert end.code == code
    assert f"run {RUN_ID}: {run.state} 5 s ago" in end.text
    assert end.text.endswith(f"of {run.num_clips:,} clips are committed; exit code {code:d}")


@pytest.mark.parametrize(
    ("lease", "after_s", "is_over"),
    [
        (lease_of(), 30, False),
        (lease_of(), 60 + DEAD_AFTER_S - 1, False),
        (lease_of(), 60 + DEAD_AFTER_S + 1, True),
        (lease_of(is_released=True), DEAD_AFTER_S - 1, False),
        (lease_of(is_released=True), DEAD_AFTER_S + 1, True),
        (lease_of(NEXT_RUN, AT_S + 2 * DEAD_AFTER_S), 2 * DEAD_AFTER_S, False),
    ],
)
def test_a_dead_driver_has_minutes_to_come_back(
    lease: LeaseRecord, after_s: float, is_over: bool
) -> None:
    end = end_of(seen(status_of(), lease=lease), AT_S + after_s)
    assert (end is not None) is is_over
    assert end is None or end.code == ExitCode.STOPPED


# one moment after another


@dataclass
class Shown:
    """A screen that keeps all that it is given."""

    views: list[View] = field(default_factory=list[View])
    lines: list[str] = field(default_factory=list[str])

    def show(self, view: View) -> None:
        self.views.append(view)

    def say(self, line: str) -> None:
        self.lines.append(line)


def followed(
    screen: Screen, news: Sequence[Seen | Trouble | None], *, stays: bool = False
) -> ExitCode:
    """Follow some news, one a second."""
    return follow((Moment(float(at), one) for at, one in enumerate(news)), screen, stays=stays)


FINISHED = ended("finished", num_clips=30)
NEXT = dataclasses.replace(status_of(), run_id=NEXT_RUN)


def test_a_store_that_does_not_answer_ends_nothing_and_is_told_once() -> None:
    screen, silence = Shown(), [Trouble("no answer"), None, Trouble("no route")]
    dead = seen(status_of(), at_s=AT_S + 60 + DEAD_AFTER_S - 2)
    code = followed(screen, [dead, *silence, None, seen(FINISHED)])
    assert code == ExitCode.OK, "as long as nothing is read, no run is taken for dead"
    assert screen.lines[:2] == [
        "the store could not be read: no answer; trying again",
        "the store answers again, after 5 s",
    ]
    assert len(screen.lines) == 3
    told = [view.trouble_text for view in screen.views]
    assert told[3] == "the store could not be read for 3 s: no route"
    assert told[0] is told[-1] is None
    assert screen.views[4].now == dead.at_s + 4


def test_the_next_run_is_watched_if_it_begins_before_the_end_was_seen() -> None:
    screen = Shown()
    done = dataclasses.replace(FINISHED, run_id=NEXT_RUN)
    assert followed(screen, [seen(status_of()), seen(NEXT), seen(done)]) == ExitCode.OK
    assert screen.lines[0] == f"run {NEXT_RUN} has begun; run {RUN_ID} is over"
    assert screen.lines[1].startswith(f"run {NEXT_RUN}: finished")


def test_a_watch_that_stays_tells_each_end_once_and_goes_on() -> None:
    screen = Shown()
    news = [
        seen(FINISHED),
        None,
        None,
        seen(NEXT),
        seen(dataclasses.replace(NEXT, state="stopped")),
    ]
    followed(screen, news, stays=True)
    assert [line.partition(":")[0].partition(";")[0] for line in screen.lines] == [
        f"run {RUN_ID}", f"run {NEXT_RUN} has begun", f"run {NEXT_RUN}",
    ]  # fmt: skip
    assert len(screen.views) == len(news)


def test_a_watch_waits_for_the_first_run() -> None:
    screen = Shown()
    nothing = Seen(URI, None, None, 0.0, None, AT_S)
    assert followed(screen, [nothing, None, seen(FINISHED)]) == ExitCode.OK
    assert screen.lines[:2] == [
        f"no run has begun in {URI} so far; waiting for the first",
        f"run {RUN_ID} has begun",
    ]


def test_a_log_gets_a_line_for_each_change_and_none_for_time_that_passes() -> None:
    lines: list[str] = []
    further = dataclasses.replace(status_of(), num_committed=21, waiting_for="2 devices")
    later = dataclasses.replace(status_of(), elapsed_s=620.0, eta_s=7000.0)
    followed(
        LineScreen(lines.append),
        [seen(status_of()), None, seen(later), seen(further), seen(further, AT_S + 90)],
    )
    rest = "1 quarantined, 3 attempts failed, 2 workers (1 lost so far), devices 98.1% busy"
    left = "about 2 h left (90 min to 3 h), 10 min elapsed"
    assert lines == [
        f"run {RUN_ID}: rendering, 30 of 2,000 clips, {rest}, {left}",
        f"run {RUN_ID}: rendering, 31 of 2,000 clips, {rest}, waiting for 2 devices, {left}",
        (
            f"run {RUN_ID}: no heartbeat, 31 of 2,000 clips, {rest}, waiting for 2 devices, "
            "10 min elapsed"
        ),
    ]


def test_json_lines_are_the_statuses_of_the_run() -> None:
    printed, said = list[str](), list[str]()
    later = dataclasses.replace(status_of(), elapsed_s=620.0)
    news = [seen(status_of()), None, seen(status_of()), seen(later), Trouble("no answer")]
    followed(JsonScreen(printed.append, said.append), news)
    assert [RunStatus.from_json(one.encode()) for one in printed] == [status_of(), later]
    assert not [one for one in printed if "\n" in one]
    assert said == ["the store could not be read: no answer; trying again"]


# the frame


def drawn(view: View, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True)
    with console.capture() as capture:
        console.print(frame(view, height))
    return capture.get().splitlines()


LONG = "[red]a very long name[/red] " * 20
CROWDED = dataclasses.replace(
    status_of(),
    kinds=status_of().kinds * 20,
    in_flight=tuple(
        dataclasses.replace(status_of().in_flight[0], name=f"{number}{LONG}", worker=LONG)
        for number in range(40)
    ),
    last_failures=tuple(
        FailureSeen(
            clip_id="0" * 32,
            name=f"clip-{number}\x1b[2J",
            failure_class="memory",
            error_type="OutOfMemoryError",
            message=LONG,
            failed_at="2026-01-31T12:09:00.000Z",
        )
        for number in range(10)
    ),
    waiting_for=LONG,
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 60), (200, 50), (40, 24)])
def test_a_crowded_frame_fits_its_terminal(width: int, height: int) -> None:
    lines = drawn(View(seen(CROWDED), AT_S + 5, LONG, 3.0), width, height)
    assert all(cell_len(line) <= width for line in map(_without_colors, lines))
    assert len(lines) <= max(height, 24)
    assert "\x1b[2J" not in "".join(lines)


def _without_colors(line: str) -> str:
    return Text.from_ansi(line.replace("\r", "")).plain


def test_a_frame_shows_rates_the_range_steps_failures_and_the_newest_failure_first() -> None:
    few = dataclasses.replace(CROWDED, kinds=status_of().kinds, in_flight=status_of().in_flight)
    text = "\n".join(map(_without_colors, drawn(View(seen(few), AT_S + 5, None, 0.0), 100, 50)))
    for part in (
        f"{RUN_ID}: rendering, last heartbeat 5 s ago",
        "20 committed, 10 before, 1,970 not; 1 quarantined, 3 attempts failed",
        "about 2 h left (90 min to 3 h), 120 clips an hour, after 10 min",
        "2, 1 lost so far; devices 98.1% busy",
        "30 of 2,000, 2%",
        "81 x 832x480, 8 steps",
        "denoise, step 4 of 8",
        "spring-31",
        "[red]a very long name[/red]",
        "memory: OutOfMemoryError: ",
    ):
        assert part in text
    assert text.index("clip-9") < text.index("clip-8")


# the whole command


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


def test_a_read_is_the_newest_run_with_its_status_and_lease(store: Store) -> None:
    assert read_seen(store).run_id is None
    write_run(store, RUN_ID, "run.json", {})
    assert (read_seen(store).run_id, read_seen(store).run) == (RUN_ID, None)
    write_status(store, status_of())
    assert read_seen(store).run == status_of()


def test_a_thread_reads_on_while_the_store_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "READ_EVERY_S", 0.001)
    memory = MemoryStore()
    memory.troubles.extend(["unavailable", "unavailable"])
    with reading(memory) as moments:
        news = [moment.news for moment, _ in zip(moments, range(3), strict=False)]
    assert news[:2] == [Trouble("no answer"), Trouble("no answer")]
    assert isinstance(news[2], Seen)


def test_a_store_that_does_not_answer_at_the_start_is_refused() -> None:
    memory = MemoryStore()
    memory.troubles.append("unavailable")
    with pytest.raises(StoreUnavailableError):
        module.watch(memory, Shown(), stays=False)


def test_a_run_that_has_ended_is_told_at_once(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(store, RUN_ID, "run.json", {})
    write_status(store, ended("finished", num_clips=40))
    assert main(["status", store.uri, "--watch"]) == ExitCode.UNFINISHED
    assert capsys.readouterr().out.rstrip().endswith("30 of 40 clips are committed; exit code 3")
    assert main(["status", store.uri, "--watch", "--json"]) == ExitCode.UNFINISHED
    captured = capsys.readouterr()
    assert json.loads(captured.out)["num_clips"] == 40
    assert "exit code 3" in captured.err
    assert main(["status", store.uri, "--stay"]) == ExitCode.REFUSED


@contextmanager
def on_a_terminal(*arguments: str) -> Generator[tuple["subprocess.Popen[bytes]", int]]:
    """Start a command on a terminal of 80 columns; yield its process and the terminal."""
    terminal, its_side = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    with subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments],
        stdin=its_side, stdout=its_side, stderr=its_side, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        os.close(its_side)
        try:
            yield process, terminal
        finally:
            process.kill()
            os.close(terminal)


def read_until(terminal: int, text: str) -> str:
    """Read a terminal until it shows a text, or is closed."""
    found = ""
    while text not in _without_colors(found):
        try:
            found += os.read(terminal, 65_536).decode(errors="replace")
        except OSError:  # the process has ended
            break
    return found


def test_a_terminal_shows_a_change_and_ctrl_c_leaves_it_clean(store: Store) -> None:
    write_run(store, RUN_ID, "run.json", {})
    write_status(store, status_of())
    with on_a_terminal("status", store.uri, "--watch") as (process, terminal):
        assert "30 of 2,000" in _without_colors(read_until(terminal, "spring-31"))
        write_status(store, dataclasses.replace(status_of(), num_committed=1234))
        assert "1,244 of 2,000" in _without_colors(read_until(terminal, "1,244 of 2,000"))
        process.send_signal(signal.SIGINT)
        rest = read_until(terminal, "nothing else was stopped")
        assert process.wait(30) == ExitCode.STOPPED
    assert "no longer watching; nothing else was stopped" in rest
    assert "\x1b[?25h" in rest, "the cursor is shown again"
    assert "Traceback" not in rest
