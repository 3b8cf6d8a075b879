"""Sizes, messages and tables as text for a terminal. `jobs.text` has the rest of the wording."""

import io
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.costs.wording import cost_text
from jobs.escaping import plain_line
from jobs.records.run_status import RunSummary
from jobs.run.progress.log_entry import LogEntry, LogEvent, counts_entry
from jobs.text import counted

MAX_MESSAGE = 200  # characters
MAX_CELL = 1000  # characters; every row of a table is as wide as its longest cell
WIDTH = 100_000  # characters; no table is that wide, so no cell is cut or wrapped


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def first_line(message: str) -> str:
    """Return the first line of a message, cut to 200 characters."""
    line = message.strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def summary_text(summary: RunSummary) -> str:
    """Return the result of a run: busy devices, cost, and each stage's share of the work."""
    work_s = {
        stage: time_s
        for stage, time_s in summary.stage_totals_s.items()
        if stage != "queue" and not stage.startswith("load_")  # they are parts of "load"
    }
    total_s = sum(work_s.values())
    shares = ", ".join(f"{stage} {time_s / total_s:.0%}" for stage, time_s in work_s.items())
    clips = counted(summary.num_committed, "clip")
    busy = f"; devices {summary.busy_share:.1%} busy" if summary.busy_share is not None else ""
    cost = f"; {text}" if (text := cost_text(summary.cost)) else ""
    return f"committed {clips} in {summary.wall_s:.1f} s{busy}{cost}; {shares or 'no work done'}"


def finished_entry(summary: RunSummary) -> LogEntry:
    """Return the log's entry of a run that has finished."""
    return counts_entry(summary, summary_text(summary), LogEvent.RUN_FINISHED)


def damaged_text(num_damaged: int) -> str:
    """Return the meaning of damaged clips, and the remedy."""
    return (
        f"damaged: {counted(num_damaged, 'clip')} with a record and without an MP4; "
        "render --repair renders the missing again"
    )


def table_lines(
    headers: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()
) -> list[str]:
    """Return a table as plain lines of full width, so that a pipe gets every id whole.

    Args:
        headers: column titles; empty for a table without a header.
        rows: cells of text of any origin; markup is printed as it is, a long text is cut.
        numbers: the columns to align right.
    """
    cells = [[Text(plain_line(cell, MAX_CELL)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headers))
    for name in headers or [""] * max(map(len, cells), default=0):
        table.add_column(Text(name), justify="right" if name in numbers else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
