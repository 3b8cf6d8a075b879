"""`nagfarm sheet`: one picture of many clips of an output."""

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from jobs.cli.outputs.clip_axes import (
    AXES_HELP,
    axis_of,
    committed_clips,
    differing,
    value_text,
    written_picture,
)
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context, OutputOptions
from jobs.errors import CheckError, ObjectMissingError, RecordError, RefusedError
from jobs.export.fetching import fetch_clip
from jobs.overview.clip_filter import FILTER_HELP, ClipFilter
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.records.schema import ClipRecord
from jobs.run.progress.long_work import long_work
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.text import counted
from pipelines.request import MAX_SEED

if TYPE_CHECKING:
    from jobs.media.contact_sheet import SheetClip

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
LINE_AXES = ("seed", "inputs")
COLUMN_AXES = ("negative_prompt", "method", "guidance", "model", "loras", "steps", "size", "run")
MAX_CLIPS, MAX_PIXELS = 400, 150_000_000
MAX_FRAMES, MAX_WIDTH = 12, 1024
MAX_SEED_DIGITS = len(str(MAX_SEED))
NUM_THREADS = 4


@dataclass(frozen=True)
class SheetOptions(OutputOptions):
    """The options of `nagfarm sheet`."""

    file: Path
    rows: str
    columns: str | None
    lines: str | None
    frames: int
    width: int
    limit: int
    font: Path | None
    chosen: ClipFilter

    @classmethod
    def add_positionals(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "file", type=Path, metavar="FILE", help=f"the picture: {', '.join(SUFFIXES)}"
        )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--rows", default="prompt", metavar="AXIS", help="a heading each (default prompt)"
        )
        parser.add_argument(
            "--columns",
            metavar="AXIS",
            help=f"beside each other (default: the first of {', '.join(COLUMN_AXES)} in which the "
            "clips differ)",
        )
        parser.add_argument(
            "--lines",
            metavar="AXIS",
            help=f"below each other (default: the first of {', '.join(LINE_AXES)} in which the "
            "clips differ)",
        )
        add = parser.add_argument
        add("--frames", type=int, default=4, metavar="N", help="frames of each clip (default 4)")
        add("--width", type=int, default=160, metavar="PX", help="of a frame (default 160)")
        add("--limit", type=int, default=MAX_CLIPS, metavar="N", help="most clips (default 400)")
        add("--font", type=Path, metavar="FILE", help="for letters that are not Latin")
        ClipFilter.add_arguments(parser, with_states=False)

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        namespace.chosen = ClipFilter.read(namespace)
        return super().read(namespace)


def run(options: SheetOptions, context: Context) -> int:
    """Draw the sheet. Raises RefusedError if an option is wrong or no clip is chosen."""
    from jobs.media.contact_sheet import FONT_PX, draw_contact_sheet, sheet_size
    from jobs.media.frames import load_font

    _check_range("--frames", options.frames, MAX_FRAMES)
    _check_range("--width", options.width, MAX_WIDTH)
    for option, word in (("--rows", options.rows), ("--lines", options.lines or LINE_AXES[0])):
        axis_of(option, word)
    font = load_font(options.font, FONT_PX)
    store = options.store()
    records, damaged = committed_clips(store, options.chosen)
    if not records:
        raise RefusedError(f"{store.uri}: no committed clip is chosen; nagfarm list shows them")
    if len(records) > options.limit:
        raise RefusedError(
            f"expected at most {counted(options.limit, 'clip')} (--limit), got {len(records):,}; "
            "choose some of them, such as --prompt '*fox*' --seed 1..4"
        )
    columns = options.columns or next(iter(differing(records, COLUMN_AXES)), COLUMN_AXES[0])
    axis_of("--columns", columns)
    lines = options.lines or next(iter(differing(records, LINE_AXES)), LINE_AXES[0])
    axes = _Axes(options.rows, columns, lines)
    with written_picture(store, "FILE", options.file, SUFFIXES) as unfinished:
        clips, troubles = _fetched(store, _places(records, axes), options)
        troubles = [*damaged, *troubles]
        for trouble in troubles:
            context.say(f"left out: {trouble}")
        if not clips:
            raise RefusedError(f"{store.uri}: none of the chosen clips can be read")
        width, height = sheet_size(clips, options.frames)
        if width * height > MAX_PIXELS:
            raise RefusedError(
                f"expected a picture of at most {MAX_PIXELS:,} pixels, got {width:,} x "
                f"{height:,}; take fewer clips, --frames or --width"
            )
        draw_contact_sheet(clips, unfinished, font, options.frames)
    named = f"rows {axes.rows}, columns {axes.columns}, lines {axes.lines}"
    context.say(f"{options.file}: {counted(len(clips), 'clip')}; {named}")
    return EXIT_FINDINGS if troubles else EXIT_OK


def _check_range(option: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise RefusedError(f"{option}: expected 1 to {most:,}, got {value:,}")


@dataclass(frozen=True)
class _Place:
    """A clip and its place on the sheet, in words."""

    record: ClipRecord
    row: str
    column: str
    line: int
    label: str


class _Axes(NamedTuple):
    """The axes of a sheet."""

    rows: str
    columns: str
    lines: str


def _places(records: Sequence[ClipRecord], axes: _Axes) -> Iterator[_Place]:
    """Yield the place of each clip. Clips that agree on all axes stand below each other."""
    row_of, column_of = axis_of("--rows", axes.rows), axis_of("--columns", axes.columns)
    line_of = axis_of("--lines", axes.lines)
    cells: defaultdict[tuple[str, str, str], list[ClipRecord]] = defaultdict(list)
    for record in records:
        cells[row_of(record), column_of(record), line_of(record)].append(record)
    depths: defaultdict[tuple[str, str], int] = defaultdict(
        int
    )  # lines that a value takes within a row
    for (row, _, line), alike in cells.items():
        depths[row, line] = max(depths[row, line], len(alike))
    for (row, column, line), alike in cells.items():
        before = (other for other in depths if other[0] == row and _order(other[1]) < _order(line))
        first = sum(depths[other] for other in before)
        for number, record in enumerate(alike):
            label = value_text(axes.lines, line)
            if len(alike) > 1:
                label = f"{label}, {record.name}"
            heading = value_text(axes.columns, column)
            yield _Place(record, value_text(axes.rows, row), heading, first + number, label)


def _order(value: str) -> tuple[int, str]:
    """Return a key that puts numbers in their order, before all other texts."""
    is_number = value.isascii() and value.isdigit() and len(value) <= MAX_SEED_DIGITS
    return (int(value), "") if is_number else (2**63, value)


def _fetched(
    store: Store, places: Iterator[_Place], options: SheetOptions
) -> "tuple[list[SheetClip], list[str]]":
    """Return the clips with their frames, and the reason for each that is left out."""
    from jobs.media.contact_sheet import SheetClip
    from jobs.media.frames import sample_frames

    reader = ObjectReader(store)

    def fetch(place: _Place) -> SheetClip | str:
        try:
            with tempfile.TemporaryDirectory(prefix="nagfarm-") as folder:
                path = fetch_clip(reader, place.record, Path(folder))
                frames = sample_frames(path, options.frames, options.width)
        except (ObjectMissingError, RecordError, UnreadableError, CheckError) as error:
            return f"{place.record.name}: {error}"
        return SheetClip(place.row, place.column, place.line, frames, place.label)

    with long_work(f"reading clips of {store.uri}"):
        found = list(in_parallel(fetch, places, NUM_THREADS))
    clips = [one for one in found if isinstance(one, SheetClip)]
    return clips, [one for one in found if isinstance(one, str)]


COMMAND = Command(
    name="sheet",
    summary="draw one picture of many clips: rows, columns and lines to choose",
    epilog=f"""\
examples:
  nagfarm sheet s3://renders/spring spring.png
  nagfarm sheet ./spring foxes.png --prompt '*fox*' --seed 1..4
  nagfarm sheet ./spring steps.jpg --columns steps --lines method --frames 2
  nagfarm sheet ./spring shots.png --rows meta.shot --columns model

{AXES_HELP}
A clip's frames stand beside each other, from its first to its last. FILE is replaced.

{FILTER_HELP}""",
    options=SheetOptions,
    run=run,
)
