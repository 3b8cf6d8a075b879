"""Sizes, messages and tables as text for a terminal. `jobs.text` has the rest of the wording."""

from collections.abc import Collection, Iterable, Sequence

from rich.cells import cell_len

from jobs.costs.wording import cost_text
from jobs.escaping import plain_line
from jobs.records.run_status import RunSummary
from jobs.run.progress.log_entry import LogEntry, LogEvent, counts_entry
from jobs.text import counted

MAX_MESSAGE = 200  # characters
MAX_CELL = 1000  # characters; every row of a table is as wide as its longest cell


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
    table = [[plain_line(cell, MAX_CELL) for cell in row] for row in rows]
    if headers:
        table.insert(0, [*headers])
    widths = [max(map(cell_len, column)) for column in zip(*table, strict=True)]
    is_right = [header in numbers for header in headers] or [False] * len(widths)
    columns = list(zip(widths, is_right, strict=True))
    return [
        "  ".join(
            _padded(cell, width, is_right=is_right)
            for cell, (width, is_right) in zip(row, columns, strict=True)
        ).rstrip()
        for row in table
    ]


def _padded(cell: str, width: int, *, is_right: bool) -> str:
    """Return a cell with the width of its column; some characters are two columns wide."""
    blanks = " " * (width - cell_len(cell))
    return blanks + cell if is_right else cell + blanks
