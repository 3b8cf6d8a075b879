"""The console of a run: a bar on a terminal, plain lines or JSON lines in a log.

A console whose file is a `JsonLines` gets JSON. All that a command prints passes this module.
"""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jobs.escaping import plain_document, plain_line
from jobs.json_lines import JsonLines
from jobs.records.run_status import ClipInFlight
from jobs.run.progress.in_flight import MAX_NAMED, in_flight_line, stage_text
from jobs.run.progress.loads import loading_text
from jobs.run.progress.log_entry import LogEntry, LogEvent
from jobs.run.progress.tally import RunTally
from jobs.text import counted, duration, log_time

LOG_EVERY_S = 10.0
IN_FLIGHT_EVERY_S = 60.0


def print_plain(console: Console, entry: LogEntry | str) -> None:
    """Print one line, which may hold text from strangers: no part of it can begin another line."""
    if not print_entry(console, entry):
        console.out(plain_line(_message(entry)), highlight=False)


def print_log(console: Console, entry: LogEntry | str) -> None:
    """Print one line of a run's log, with the date and the time of day in UTC before it."""
    if not print_entry(console, entry):
        print_plain(console, f"{log_time(time.time())} {_message(entry)}".rstrip())


def print_entry(console: Console, entry: LogEntry | str) -> bool:
    """Print an entry to a log in JSON; return False, and print nothing, if it is one in text."""
    file = console.file
    if not isinstance(file, JsonLines):
        return False
    entry = LogEntry(entry) if isinstance(entry, str) else entry
    file.write_entry(entry.event.value, entry.message, entry.level, **entry.facts)
    return True


def print_json(console: Console, text: str) -> None:
    """Print a JSON document or a part of it, whose texts may come from strangers."""
    file = console.file
    if isinstance(file, JsonLines):
        file.write_document(plain_document(text))
    else:
        console.out(plain_document(text), highlight=False)


def bind_run(console: Console, run_id: str) -> None:
    """Let all further lines of a log in JSON name the run."""
    file = console.file
    if isinstance(file, JsonLines):
        file.common["run"] = run_id


def _message(entry: LogEntry | str) -> str:
    return entry if isinstance(entry, str) else entry.message


class ConsoleReport:
    """The progress of a run for people.

    A terminal gets a bar. Anything else gets a line at the first and the last clip, and at most
    every ten seconds in between. Both get, every minute, a line with the clips in flight.

    Args:
        console: the terminal or log.
        num_clips: the number of clips to render.
        started: the time at which the run began, in seconds of a clock that never goes back.
    """

    def __init__(self, console: Console, num_clips: int, started: float) -> None:
        self._console = console
        self._last_in_flight = started
        self._last_loading = started
        self._last_line = float("-inf")
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("rendering", total=num_clips)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def say(self, entry: LogEntry | str) -> None:
        print_log(self._console, entry)

    def note(self, entry: LogEntry) -> None:
        """Add an entry to a log in JSON alone."""
        print_entry(self._console, entry)

    def clip_ended(self, tally: RunTally, now: float) -> None:
        """Advance the bar, or print a line if one is due."""
        self._bar.update(self._task, advance=1)
        is_due = now - self._last_line >= LOG_EVERY_S or tally.num_ended in (1, tally.num_clips)
        if self._console.is_terminal or not is_due:
            return
        self._last_line = now
        left_s = tally.left_s()
        left = f", about {duration(left_s)} left" if left_s else ""
        self.say(
            LogEntry(
                f"{tally.num_ended:,} of {counted(tally.num_clips, 'clip')}, "
                f"{tally.num_quarantined:,} quarantined, "
                f"{duration(tally.elapsed_s(now))} elapsed{left}",
                LogEvent.PROGRESS,
                num_clips=tally.num_clips,
                num_committed=tally.num_committed,
                num_quarantined=tally.num_quarantined,
                num_failures=tally.num_failures,
                num_workers=tally.num_workers,
                elapsed_s=tally.elapsed_s(now),
                left_s=left_s,
            )
        )

    def tick(self, tally: RunTally, now: float) -> None:
        """Show the loads until a worker is ready; print clips in flight if a minute has passed."""
        is_loading = bool(tally.loading) and not tally.num_workers
        loading = f"loading: {loading_text(tally.loading)}" if is_loading else ""
        if self._console.is_terminal:
            self._bar.update(self._task, description=loading or "rendering")
        elif loading and now - self._last_loading >= LOG_EVERY_S:
            self._last_loading = now
            self.say(LogEntry(loading, LogEvent.WORKERS_LOADING))
        if now - self._last_in_flight >= IN_FLIGHT_EVERY_S:
            self._last_in_flight = now
            waiting = f"; waiting for {tally.waiting_for}" if tally.waiting_for else ""
            clips = tally.in_flight.clips(now)
            line = in_flight_line(clips) + waiting
            self.say(LogEntry(line, LogEvent.CLIPS_IN_FLIGHT, num_clips=len(clips)))
            for clip in clips[:MAX_NAMED]:
                self.note(_entry_of(clip))


def _entry_of(clip: ClipInFlight) -> LogEntry:
    return LogEntry(
        f"{clip.name}: {stage_text(clip)}, {duration(clip.running_s)}",
        LogEvent.CLIP_IN_FLIGHT,
        clip=clip.clip_id,
        name=clip.name,
        worker=clip.worker,
        stage=clip.stage,
        step=clip.step,
        num_steps=clip.num_steps,
        running_s=clip.running_s,
    )
