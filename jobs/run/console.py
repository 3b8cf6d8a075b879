"""The console of a run: a bar on a terminal, plain lines in a log."""

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
from jobs.run.in_flight import in_flight_line
from jobs.run.loads import loading_text
from jobs.run.tally import RunTally
from jobs.text import counted, duration, log_time

LOG_EVERY_S = 10.0
IN_FLIGHT_EVERY_S = 60.0


def print_plain(console: Console, text: str) -> None:
    """Print one line, which may hold text from strangers: no part of it can begin another line."""
    console.out(plain_line(text), highlight=False)


def print_log(console: Console, text: str) -> None:
    """Print one line of a run's log, with the date and the time of day in UTC before it."""
    print_plain(console, f"{log_time(time.time())} {text}".rstrip())


def print_json(console: Console, text: str) -> None:
    """Print a JSON document or a part of it, whose texts may come from strangers."""
    console.out(plain_document(text), highlight=False)


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

    def say(self, line: str) -> None:
        print_log(self._console, line)

    def clip_ended(self, tally: RunTally, now: float) -> None:
        """Advance the bar, or print a line if one is due."""
        self._bar.update(self._task, advance=1)
        is_due = now - self._last_line >= LOG_EVERY_S or tally.num_ended in (1, tally.num_clips)
        if self._console.is_terminal or not is_due:
            return
        self._last_line = now
        left_s = tally.left_s(now)
        left = f", about {duration(left_s)} left" if left_s else ""
        self.say(
            f"{tally.num_ended:,} of {counted(tally.num_clips, 'clip')}, "
            f"{tally.num_quarantined:,} quarantined, {duration(tally.elapsed_s(now))} elapsed{left}"
        )

    def tick(self, tally: RunTally, now: float) -> None:
        """Show the loads until a worker is ready; print clips in flight if a minute has passed."""
        is_loading = bool(tally.loading) and not tally.num_workers
        loading = f"loading: {loading_text(tally.loading)}" if is_loading else ""
        if self._console.is_terminal:
            self._bar.update(self._task, description=loading or "rendering")
        elif loading and now - self._last_loading >= LOG_EVERY_S:
            self._last_loading = now
            self.say(loading)
        if now - self._last_in_flight >= IN_FLIGHT_EVERY_S:
            self._last_in_flight = now
            waiting = f"; waiting for {tally.waiting_for}" if tally.waiting_for else ""
            self.say(in_flight_line(tally.in_flight.clips(now)) + waiting)
