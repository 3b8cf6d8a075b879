"""`nagfarm list`: every clip of an output, as a table, CSV or JSON."""

import argparse
import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from jobs.cli.outputs.verify_report import ID_DIGITS_SHOWN, progress_bar
from jobs.cli.pattern.clip_options import ClipOptions, say_unreadable
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context
from jobs.cli.pattern.wording import megabytes, table_lines
from jobs.overview.clip_filter import FILTER_HELP
from jobs.overview.clip_table import COLUMNS, table_row, text_cells
from jobs.overview.clips import STATES, OutputClip, Unreadable, read_clips
from jobs.text import counted

MAX_TEXT_SHOWN = 60  # characters of a prompt, in a table for people
HEADERS = ("name", "prompt", "negative prompt", "seed", "model", "method", "state", "key or id")


@dataclass(frozen=True)
class ListOptions(ClipOptions):
    """The options of `nagfarm list`."""

    csv: bool
    json: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        kinds = parser.add_mutually_exclusive_group()
        kinds.add_argument("--csv", action="store_true", help="print CSV, with all columns")
        kinds.add_argument(
            "--json", action="store_true", help="print one JSON array, an object a clip"
        )


@dataclass
class _Counts:
    """The clips that were read, and those of them that were chosen."""

    num_read: int = 0
    num_unreadable: int = 0
    num_bytes: int = 0

    def __post_init__(self) -> None:
        self.states = Counter[str]()

    def text(self) -> str:
        num_chosen = self.states.total()
        states = ", ".join(f"{self.states[one]:,} {one}" for one in STATES if self.states[one])
        of_all = f" of {self.num_read:,}" if num_chosen != self.num_read else ""
        size = f", {megabytes(self.num_bytes)}" if self.num_bytes else ""
        return f"{counted(num_chosen, 'clip')}{of_all}" + (f": {states}{size}" if states else "")


def run(options: ListOptions, context: Context) -> int:
    """Print the chosen clips.

    Raises:
        RefusedError: no run has written to the output, or an option is wrong.
    """
    store = options.output_of_a_run()
    counts = _Counts()
    lines: list[str] = []
    with progress_bar(context.console, is_json=options.csv or options.json) as bar:
        task = bar.add_task("", total=16**ID_DIGITS_SHOWN)

        def rows() -> Iterator[dict[str, Any]]:
            for clip in read_clips(store, with_failures=False):
                done = int(clip.clip_id[:ID_DIGITS_SHOWN], 16)
                bar.update(task, completed=done, description=counts.text())
                if isinstance(clip, Unreadable):
                    counts.num_unreadable += 1
                    say_unreadable(clip)
                    continue
                counts.num_read += 1
                if options.chosen.matches(clip):
                    counts.states[clip.state] += 1
                    counts.num_bytes += _num_bytes(clip)
                    yield table_row(clip)

        if options.csv:
            _print_csv(rows(), context)
        elif options.json:
            _print_json(rows(), context)
        else:
            lines = text_lines(rows())
    if not (options.csv or options.json):
        for line in lines:
            context.say(line)
        context.say(counts.text())
    return EXIT_FINDINGS if counts.num_unreadable else EXIT_OK


def _num_bytes(clip: OutputClip) -> int:
    return clip.record.num_bytes if clip.record is not None else 0


def text_lines(rows: Iterable[dict[str, Any]]) -> list[str]:
    """Return a table for people, sorted by name: texts are cut, and numbers of names in order."""
    cells = sorted(map(_cells, rows), key=lambda cells: (cells[0], cells[-1]))
    return table_lines(HEADERS, cells, ("seed",)) if cells else []


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    request = (
        _shortened(row["prompt"] or ""),
        _shortened(row["negative_prompt"] or ""),
        "" if row["seed"] is None else str(row["seed"]),
    )
    rest = (row["model"] or "", row["method"] or "", row["state"], row["key"] or row["clip_id"])
    return (row["name"], *request, *rest)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT_SHOWN else f"{line[: MAX_TEXT_SHOWN - 3]}..."


def _print_csv(rows: Iterable[dict[str, Any]], context: Context) -> None:
    for cells in ([*COLUMNS], *map(text_cells, rows)):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        context.say_json(text.getvalue())


def _print_json(rows: Iterable[dict[str, Any]], context: Context) -> None:
    """Print one array, a clip a line, so that no list of them is held in memory."""
    start = "["
    for row in rows:
        context.say_json(start + json.dumps(row, ensure_ascii=False))
        start = ","
    context.say_json("]" if start == "," else "[]")


COMMAND = Command(
    name="list",
    summary="list the clips of an output: name, prompt, seed, model, method, state, key",
    epilog=f"""\
examples:
  nagfarm list s3://renders/spring
  nagfarm list s3://renders/spring --prompt '*fox*' --seed 5..8
  nagfarm list s3://renders/spring --state quarantined --state failed
  nagfarm list s3://renders/spring --csv > clips.csv
  nagfarm list s3://renders/spring --json | jq -r '.[] | select(.seed == 7).uri'

{FILTER_HELP}
Prints a table for people, sorted by name, or every column as CSV or JSON, in the order of ids. It
reads the records and changes nothing. A clip that failed has the texts and the seed that it was to
be rendered with, and no key.

columns of --csv and --json:
{chr(10).join(f"  {name:<20} {text}" for name, text in COLUMNS.items())}

exit codes:
  0 all is listed, 3 some records could not be read, 2 refused
""",
    options=ListOptions,
    run=run,
)
