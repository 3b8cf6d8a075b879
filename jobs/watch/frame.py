"""A watched run on a terminal: one frame that is drawn again and again, at most as large as it.

All texts pass `jobs.escaping`; a long one is cut with an ellipsis, never wrapped.
"""

from collections.abc import Collection
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.costs.wording import cost_text
from jobs.escaping import plain_line
from jobs.overview.output_status import AT_WORK
from jobs.records.run_status import ClipInFlight, FailureSeen, KindStatus, RunStatus
from jobs.run.progress.console import print_plain
from jobs.run.progress.in_flight import stage_text
from jobs.run.progress.loads import loading_text
from jobs.text import counted, duration
from jobs.watch.seen import end_of
from jobs.watch.watch import View
from jobs.watch.wording import deadline_text, kind_size, left_text, run_state_text

MAX_CELL = 200  # characters; wider than a terminal
MAX_COLUMN = 24  # the widest name beside a reason
MIN_ROWS = 3  # the least of each table
STEP_CELLS = 8  # the width of the bar of a clip's steps


class TerminalScreen:
    """Draws a run on a terminal; lines that stay are printed above it.

    Args:
        console: a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._live.stop()  # the last frame stays

    def show(self, view: View) -> None:
        self._live.update(frame(view, self._console.height), refresh=True)

    def say(self, line: str) -> None:
        print_plain(self._console, line)


def frame(view: View, height: int) -> RenderableType:
    """Return the frame of a moment.

    Args:
        height: lines of the terminal.
    """
    seen, run = view.seen, view.seen.by_store
    parts: list[RenderableType] = [_line(seen.uri, "bold")]
    if view.trouble_text is not None:
        parts.append(_line(view.trouble_text, "yellow"))
    if run is None:
        waiting = "no run has begun so far" if seen.run_id is None else "no status so far"
        return Group(*parts, _line(f"{seen.run_id or ''} {waiting}".strip()))
    is_at_work = run.state in AT_WORK and view.trouble is None
    facts = _facts(run, view)
    parts += [facts, _bar(run)]
    # the facts, their bar, the heads of three tables and the blank lines before them
    num_rows = height - len(parts) - facts.row_count - 8
    num_kinds = min(len(run.kinds), max(num_rows // 3, MIN_ROWS))
    num_failures = min(len(run.last_failures), max(num_rows // 4, MIN_ROWS))
    num_clips = max(num_rows - num_kinds - num_failures, MIN_ROWS)
    if run.kinds:
        parts += [Text(), _kinds(run.kinds[:num_kinds])]
    if run.in_flight and end_of(seen, view.now) is None:
        parts += [Text(), _in_flight(run.in_flight, num_clips, is_at_work=is_at_work)]
    if run.last_failures:
        newest = list(reversed(run.last_failures))[:num_failures]
        parts += [Text(), _failures(newest)]
    return Group(*parts)


def _line(text: str, style: str = "") -> Text:
    line = Text(plain_line(text), style=style, no_wrap=True, overflow="ellipsis")
    line.end = "\n"
    return line


def _cell(text: str) -> Text:
    return Text(plain_line(text, MAX_CELL), no_wrap=True, overflow="ellipsis")


def _grid(*columns: str, narrowed: Collection[str], numbers: Collection[str] = ()) -> Table:
    """Return a table without lines, whose columns have titles.

    Args:
        narrowed: columns that become narrower if the terminal is.
        numbers: columns to align right.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in columns:
        table.add_column(
            Text(title, style="bold", no_wrap=True, overflow="ellipsis"),
            justify="right" if title in numbers else "left",
            no_wrap=title not in narrowed,  # their cells do not wrap either, see `_cell`
            overflow="ellipsis",
        )
    return table


def _facts(run: RunStatus, view: View) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, min_width=9)
    table.add_column(no_wrap=True, overflow="ellipsis")
    num_left = max(run.num_clips - run.num_done_before - run.num_committed, 0)
    rate = "" if run.clips_per_hour is None else f", {run.clips_per_hour:,.0f} clips an hour"
    busy = "" if run.busy_share is None else f"; devices {run.busy_share:.1%} busy"
    lost = f", {run.num_workers_lost:,} lost so far" if run.num_workers_lost else ""
    left = left_text(run) if run.state in AT_WORK else ""
    clips = (
        f"{run.num_committed:,} committed, {run.num_done_before:,} before, {num_left:,} not; "
        f"{run.num_quarantined:,} quarantined, {counted(run.num_failures, 'attempt')} failed"
    )
    facts = [
        ("run", f"{run.run_id}: {run_state_text(run, view.seen.lease, view.now)}"),
        ("clips", clips),
        ("time", f"{left or 'no estimate'}{rate}, after {duration(run.elapsed_s)}"),
        ("workers", f"{run.num_workers:,}{lost}{busy}"),
        ("cost", cost_text(run.cost)),
        ("deadline", run.deadline and deadline_text(run.deadline, view.now)),
        ("waiting", run.waiting_for and f"for {run.waiting_for}"),
        ("loading", loading_text(run.loading)),
        ("log", run.log_trouble and f"could not be written: {run.log_trouble}"),
    ]
    for name, text in facts:
        if text:
            table.add_row(Text(name, style="cyan"), _cell(text))
    return table


def _bar(run: RunStatus) -> RenderableType:
    num_there = run.num_done_before + run.num_committed
    share = num_there / run.num_clips if run.num_clips else 1.0
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    bar = ProgressBar(total=max(run.num_clips, 1), completed=num_there)
    table.add_row(bar, Text(f"{num_there:,} of {run.num_clips:,}, {share:.0%}"))
    return table


def _kinds(kinds: tuple[KindStatus, ...]) -> Table:
    numbers = ("an hour", "s each", "left", "in flight")
    table = _grid("model", "size", *numbers, narrowed=("model", "size"), numbers=numbers)
    for kind in kinds:
        num_left = kind.num_clips - kind.num_committed - kind.num_quarantined
        table.add_row(
            _cell(kind.model),
            _cell(kind_size(kind)),
            "" if kind.clips_per_hour is None else f"{kind.clips_per_hour:,.1f}",
            "" if kind.clip_s is None else f"{kind.clip_s:,.1f}",
            f"{num_left:,}",
            f"{kind.num_in_flight:,}",
        )
    return table


def _in_flight(clips: tuple[ClipInFlight, ...], num_rows: int, *, is_at_work: bool) -> Table:
    title = "in flight" if is_at_work else "last seen in flight"
    columns = title, "worker", "at", "steps", "for"
    table = _grid(*columns, narrowed=columns[:2], numbers=("for",))
    for clip in clips[:num_rows]:
        at = (_cell(stage_text(clip)), _steps(clip), Text(duration(clip.running_s)))
        table.add_row(_cell(clip.name), _cell(clip.worker), *at)
    if len(clips) > num_rows:
        table.add_row(Text(f"and {len(clips) - num_rows:,} more", style="dim"))
    return table


def _steps(clip: ClipInFlight) -> RenderableType:
    if clip.stage != "denoise":
        return Text()
    num_done = 0 if clip.step is None else clip.step + 1
    return ProgressBar(total=max(clip.num_steps, 1), completed=num_done, width=STEP_CELLS)


def _failures(failures: list[FailureSeen]) -> Table:
    table = _grid("last failures", "at", "reason", narrowed=("reason",))
    for failure in failures:
        first_line = failure.message.strip().partition("\n")[0]
        reason = f"{failure.failure_class}: {failure.error_type}: {first_line}"
        name = _cell(failure.name)
        name.truncate(MAX_COLUMN, overflow="ellipsis")
        table.add_row(name, Text(failure.failed_at[11:19]), _cell(reason))
    return table
