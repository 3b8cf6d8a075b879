"""Numbers, times and tables as text for people."""

import io
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

MAX_MESSAGE = 200  # characters
WIDTH = 100_000  # characters; no table is that wide, so no cell is cut or wrapped


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which there are at least two. Never negative."""
    left_s = max(seconds, 0.0)  # negative if the clocks of two machines differ
    for unit, size_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if left_s >= 2 * size_s:
            return f"{left_s / size_s:.0f} {unit}"
    return f"{left_s:.0f} s"


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"


def first_line(message: str) -> str:
    """Return the first line of a message, cut to 200 characters."""
    line = message.strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def printable(text: str) -> str:
    """Replace control characters, which could move the cursor of a terminal, by `?`.

    Names of clips and error messages come from users and third parties.
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def table_lines(
    headers: Sequence[str], rows: Iterable[Sequence[str]], numbers: Collection[str] = ()
) -> list[str]:
    """Return a table as plain lines of full width, so that a pipe gets every id whole.

    Args:
        headers: column titles; empty for a table without a header.
        rows: cells of plain text; markup is printed as it is, control characters become `?`.
        numbers: the columns to align right.
    """
    cells = [[Text(printable(cell)) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headers))
    for name in headers or [""] * max(map(len, cells), default=0):
        table.add_column(Text(name), justify="right" if name in numbers else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]
