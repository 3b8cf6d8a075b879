"""What a run says while it goes on: a bar on a terminal, plain lines in a log."""

import time
from collections import defaultdict, deque
from collections.abc import Callable
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

from jobs.records.run_status import FailureSeen
from jobs.records.schema import utc_iso
from jobs.run.in_flight import InFlight
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry, Stop, Wait
from jobs.types import ClipDone, ClipFailed, WorkerHeartbeat

LOG_EVERY_S = 10.0
IN_FLIGHT_EVERY_S = 60.0
NUM_LAST_FAILURES = 10
FOLLOWS = {
    Retry: "will be tried again",
    Wait: "waits, and will be tried again",
    Quarantine: "given up",
    Stop: "the run stops",
}


def _nothing() -> None:
    """Nobody wants to be called at each turn."""


class RunProgress:
    """Follows a run as the dispatcher's observer, tells people, and counts for the summary.

    Args:
        num_clips: that are to be rendered.
        console: a terminal gets a bar, anything else a line when something goes wrong, at the first and last clip, at
            most every ten seconds in between, and every minute what is in flight.
        on_failed: is told of each failure besides; it writes the record.
        on_turn: is called at each turn of the dispatcher's loop; what it raises ends the run.
    """

    def __init__(
        self,
        num_clips: int,
        console: Console,
        on_failed: Callable[[ClipFailed, Decision], None],
        on_turn: Callable[[], None] = _nothing,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.num_clips = num_clips
        self.num_committed = 0
        self.num_quarantined = 0
        self.num_failures = 0
        self.num_workers = 0
        self.num_workers_lost = 0
        self.stage_totals_s: defaultdict[str, float] = defaultdict(float)
        self.in_flight = InFlight(monotonic)
        self._last_failures: deque[FailureSeen] = deque(maxlen=NUM_LAST_FAILURES)
        self._console = console
        self._on_failed = on_failed
        self._on_turn = on_turn
        self._monotonic = monotonic
        self._started = self._last_in_flight = monotonic()
        self._first_ended: float | None = None
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

    @property
    def _num_ended(self) -> int:
        return self.num_committed + self.num_quarantined

    @property
    def left_s(self) -> float | None:
        """By the pace since the first clip ended, which waited for models to load; None until there is a pace."""
        if self._first_ended is None or self._num_ended < 2 or not self.num_committed:
            return None
        pace_s = (self._monotonic() - self._first_ended) / (self._num_ended - 1)
        return pace_s * (self.num_clips - self._num_ended)

    @property
    def elapsed_s(self) -> float:
        return self._monotonic() - self._started

    @property
    def last_failures(self) -> tuple[FailureSeen, ...]:
        return tuple(self._last_failures)

    def worker_ready(self, label: str, device: str) -> None:
        self.num_workers += 1
        self._say(f"worker {label} is ready on {device}")

    def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
        self.num_workers -= is_ready
        self.num_workers_lost += is_lost
        self.in_flight.lose(label)
        self._say(f"{'lost' if is_lost else 'replaced'} worker {label}: {message}")

    def worker_heartbeat(self, heartbeat: WorkerHeartbeat) -> None:
        self.in_flight.hear(heartbeat)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        self.in_flight.start(label, attempt)

    def clip_done(self, done: ClipDone) -> None:
        self.num_committed += 1
        self.in_flight.end(done.clip_id)
        for timing in done.timings:
            self.stage_totals_s[timing.stage] += timing.duration_s
        self._advance()

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        self.num_failures += 1
        self.in_flight.end(failed.clip_id)
        self._last_failures.append(FailureSeen.of(failed, utc_iso(time.time())))
        for timing in failed.timings:
            self.stage_totals_s[timing.stage] += timing.duration_s
        cause = failed.message.splitlines()[0][:300]
        what = f"{failed.name} ({failed.clip_id}) failed in attempt {failed.attempt}: {failed.error_type}: {cause}"
        self._say(f"{what}; {FOLLOWS[type(decision)]}")
        self._on_failed(failed, decision)
        if isinstance(decision, Quarantine):
            self.num_quarantined += 1
            self._advance()

    def turn(self) -> None:
        now = self._monotonic()
        if now - self._last_in_flight >= IN_FLIGHT_EVERY_S:
            self._last_in_flight = now
            self._say(str(self.in_flight))
        self._on_turn()

    def _advance(self) -> None:
        self._bar.update(self._task, advance=1)
        finished, now = self._num_ended, self._monotonic()
        self._first_ended = now if self._first_ended is None else self._first_ended
        is_due = now - self._last_line >= LOG_EVERY_S or finished in (1, self.num_clips)
        if not self._console.is_terminal and is_due:
            self._last_line = now
            left = "" if self.left_s is None else f", about {self.left_s:.0f} s left"
            self._say(
                f"{finished:,} of {self.num_clips:,} clips, {self.num_quarantined:,} given up, "
                f"{now - self._started:.0f} s gone{left}"
            )

    def _say(self, line: str) -> None:
        """Plain text: what strangers wrote is neither markup nor wrapped."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
