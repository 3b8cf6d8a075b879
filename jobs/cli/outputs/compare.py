"""`nagfarm compare`: 2 to 9 clips side by side in one MP4."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.outputs.clip_axes import AXES, clips_named, differing, value_text, written_picture
from jobs.cli.pattern.command import EXIT_OK, Command, Context, OutputOptions
from jobs.errors import RefusedError
from jobs.export.fetching import fetch_clip
from jobs.records.reading import ObjectReader
from jobs.records.schema import ClipRecord
from jobs.run.progress.long_work import long_work
from jobs.text import counted

MIN_CLIPS, MAX_CLIPS = 2, 9
MIN_HEIGHT, MAX_HEIGHT = 32, 2160
CAPTION_AXES = [word for word in AXES if word not in ("name", "run")]


@dataclass(frozen=True)
class CompareOptions(OutputOptions):
    """The options of `nagfarm compare`."""

    clips: tuple[str, ...]
    output: Path
    columns: int | None
    height: int | None
    sound: int | None
    font: Path | None

    @classmethod
    def add_positionals(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "clips", nargs="+", metavar="CLIP", help="2 to 9 names or ids of committed clips"
        )

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        add = parser.add_argument
        add("--output", type=Path, required=True, metavar="FILE", help="the MP4; it is replaced")
        add("--columns", type=int, metavar="N", help="clips in a row (default: 2 or 3)")
        add("--height", type=int, metavar="PX", help="of each clip (default: the highest one's)")
        add("--sound", type=int, metavar="N", help="keep the sound of the N-th clip, if it has any")
        add("--font", type=Path, metavar="FILE", help="for letters that are not Latin")


def run(options: CompareOptions, context: Context) -> int:
    """Write the comparison.

    Raises:
        RefusedError: an option is wrong, or a clip is not there.
        StoreError: the store does not answer, or a clip cannot be read.
    """
    from jobs.media.comparison import ComparedClip, ComparisonParams, write_comparison

    words = [word for word in options.clips if "=" not in word]
    _check(options, len(words))
    store = options.store()
    records = clips_named(store, words)
    params = ComparisonParams(options.columns, options.height, options.sound, options.font)
    reader, captions = ObjectReader(store), captions_of(records)
    with (
        written_picture(store, "--output", options.output, (".mp4",)) as unfinished,
        tempfile.TemporaryDirectory(prefix="nagfarm-") as folder,
        long_work(f"comparing {counted(len(records), 'clip')} of {store.uri}"),
    ):
        clips = [
            ComparedClip(
                path=fetch_clip(reader, record, Path(folder)),
                width=record.width,
                height=record.height,
                num_frames=record.num_frames,
                fps=record.fps,
                captions=lines,
            )
            for record, lines in zip(records, captions, strict=True)
        ]
        write_comparison(clips, unfinished, params)
    context.say(f"{options.output}: {counted(len(clips), 'clip')}")
    return EXIT_OK


def _check(options: CompareOptions, num_clips: int) -> None:
    if not MIN_CLIPS <= num_clips <= MAX_CLIPS:
        raise RefusedError(f"expected {MIN_CLIPS} to {MAX_CLIPS} clips, got {num_clips}")
    for option, value, least, most in (
        ("--columns", options.columns, 1, MAX_CLIPS),
        ("--height", options.height, MIN_HEIGHT, MAX_HEIGHT),
        ("--sound", options.sound, 1, num_clips),
    ):
        if value is not None and not least <= value <= most:
            raise RefusedError(f"{option}: expected {least} to {most}, got {value}")


def captions_of(records: Sequence[ClipRecord]) -> list[tuple[str, ...]]:
    """Return the lines below each clip: its name, and the values in which the clips differ."""
    words = differing(records, CAPTION_AXES)
    return [
        (record.name, *(value_text(word, AXES[word](record)) for word in words))
        for record in records
    ]


COMMAND = Command(
    name="compare",
    summary="put 2 to 9 clips side by side into one MP4, with captions",
    epilog="""\
examples:
  nagfarm compare s3://renders/spring fox-1 fox-2 --output foxes.mp4
  nagfarm compare ./spring hero-plain hero-nag hero-cfg hero-vsf --columns 2 --output hero.mp4
  nagfarm compare ./spring fox-1 fox-2 --height 240 --sound 1 --output small.mp4

Below each clip stand its name and the values in which the clips differ, such as the negative prompt
or the seed. Clips of other sizes are scaled to the height of the highest one or to --height; a
shorter clip holds its last frame until the longest one ends; all run at the highest rate. Sound is
dropped, unless --sound says whose is kept.
""",
    options=CompareOptions,
    run=run,
)
