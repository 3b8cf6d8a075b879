"""`nagfarm pick`: chosen clips as a manifest, to render them again."""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console

from jobs.cli.outputs.verify_report import ID_DIGITS_SHOWN, progress_bar
from jobs.cli.pattern.clip_options import ClipOptions, say_aside, say_unreadable
from jobs.cli.pattern.command import EXIT_OK, Command, Context
from jobs.errors import RefusedError, RowValueError
from jobs.manifest.field_values import check_field, parse_cell
from jobs.manifest.fields import GUIDANCE, PARALLEL
from jobs.manifest.tables.meta import META
from jobs.overview.clip_filter import FILTER_HELP, read_seeds
from jobs.overview.clips import Unreadable, read_clips
from jobs.overview.manifest_row import row_line
from jobs.overview.picks import Picks, Retakes, Seeds, word_of_file
from jobs.store.store import Store
from jobs.text import counted, shown
from pipelines.regular_files import read_bounded
from pipelines.request import MAX_SEED

MAX_NAMES_BYTES = 16 * 1024 * 1024  # in a file of names
MAX_SEEDS = 10_000  # for each clip
MAX_SEED_DIGITS = len(str(MAX_SEED))
OF_THE_CLIP = ("name", "seed")  # fields that --set does not change
TABLES = (GUIDANCE, PARALLEL, META)


@dataclass(frozen=True)
class PickOptions(ClipOptions):
    """The options of `nagfarm pick`."""

    words: tuple[str, ...]
    names: str | None
    seeds: str | None
    steps: int | None
    set: tuple[str, ...]

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.usage = "%(prog)s [-h] [options] URI [NAME ...] [key=value ...]"
        super().add_arguments(parser)
        parser.add_argument(
            "--names",
            metavar="FILE",
            help="also the clips that this file names, one a line; - reads them from stdin",
        )
        parser.add_argument(
            "--seeds",
            metavar="N or SEEDS",
            help="3 for three more seeds of each clip, or the seeds themselves: 5..8 or 7,11",
        )
        parser.add_argument("--steps", type=int, metavar="N", help="denoise with N steps")
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="FIELD=VALUE",
            help="another value of a field of the manifest, such as nag_scale=7; may be repeated",
        )

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the options; a word without `=` is a clip's name, id or file."""
        words: list[str] = namespace.settings
        namespace.words = [word for word in words if "=" not in word]
        namespace.settings = [word for word in words if "=" in word]
        return super().read(namespace)

    def changes(self) -> dict[str, Any]:
        """Return the values that --set and --steps give, by field.

        Raises:
            RefusedError: a field or a value is wrong.
        """
        given = [("--set", *text.partition("=")) for text in self.set]
        if self.steps is not None:
            if self.steps < 1:
                raise RefusedError(f"--steps: expected at least 1, got {self.steps}")
            given.append(("--steps", "num_inference_steps", "=", str(self.steps)))
        values: dict[str, Any] = {}
        for option, name, sign, text in given:
            if not sign or name in OF_THE_CLIP:
                raise RefusedError(
                    f"{option}: expected FIELD=VALUE, such as nag_scale=7, and not the name or the "
                    f"seed, got {shown(f'{name}{sign}{text}')}"
                )
            if name in TABLES:
                raise RefusedError(
                    f"{option}: {name} holds several values, and only a single field can be set; "
                    "change it in the rows that pick prints"
                )
            try:
                check_field(name)
                value = parse_cell(name, text)
                values[name] = text if name == "loras" else value  # its value has no JSON
            except RowValueError as error:
                raise RefusedError(f"{option}: {error}") from error
        return values

    def chosen_seeds(self) -> Seeds:
        """Return the meaning of --seeds. Raises RefusedError if it has another form."""
        if self.seeds is None:
            return Seeds()
        if self.seeds.isdecimal() and len(self.seeds) <= MAX_SEED_DIGITS:
            seeds = Seeds(num_new=int(self.seeds))
            num_seeds = seeds.num_new
        else:
            seeds = Seeds(given=tuple(read_seeds("--seeds", self.seeds)))
            num_seeds = sum(last - first + 1 for first, last in seeds.given)
        if not 1 <= num_seeds <= MAX_SEEDS:
            one = f"; the one seed {num_seeds} is {num_seeds}..{num_seeds}" if seeds.num_new else ""
            raise RefusedError(
                f"--seeds: expected 1 to {MAX_SEEDS:,} seeds, got {num_seeds:,}{one}"
            )
        return seeds


def run(options: PickOptions, context: Context) -> int:
    """Print a row for each pick and each of its seeds.

    Raises:
        RefusedError: a word names no clip or several, or an option is wrong; nothing is printed.
    """
    changes, seeds = options.changes(), options.chosen_seeds()
    words = [word_of_file(word) for word in (*options.words, *_read_names(options.names))]
    if not words and options.chosen.is_all:
        raise RefusedError(
            "expected names or ids of clips, a file of them (--names), or an option that chooses "
            "clips, such as --prompt; nagfarm list shows the clips"
        )
    picks, retakes = Picks(words), Retakes(changes, seeds)
    store = options.output_of_a_run()
    _read(store, options, picks, retakes)
    clips = picks.clips()
    if not clips:
        raise RefusedError("these options choose no clip; nagfarm list shows the clips")
    rows = list(retakes.rows(clips))
    for row in rows:
        context.say_json(row_line(row))
    say_aside(
        f"{counted(len(rows), 'row')} of {counted(len(clips), 'clip')}; save them as a .jsonl, and "
        f"render them with nagfarm render FILE.jsonl --output {store.uri}"
    )
    if not (changes or options.seeds):
        say_aside("they ask for the same clips; --seeds and --steps ask for others")
    return EXIT_OK


def _read(store: Store, options: PickOptions, picks: Picks, retakes: Retakes) -> None:
    """Offer every clip of an output to the picks."""
    with progress_bar(Console(stderr=True), is_json=False) as bar:
        task = bar.add_task("", total=16**ID_DIGITS_SHOWN)
        for clip in read_clips(store, with_failures=False):
            bar.update(task, completed=int(clip.clip_id[:ID_DIGITS_SHOWN], 16))
            if isinstance(clip, Unreadable):
                say_unreadable(clip)
                continue
            retakes.note(clip)
            if options.chosen.matches(clip):
                picks.offer(clip)


def _read_names(file: str | None) -> list[str]:
    """Return the words of a file, one a line; blank lines and those that begin with # are left out.

    Raises:
        RefusedError: it cannot be read, or is too large.
    """
    if file is None:
        return []
    try:
        if file == "-":
            content = sys.stdin.buffer.read(MAX_NAMES_BYTES)
        else:
            content = read_bounded(Path(file), MAX_NAMES_BYTES)
        lines = content.decode("utf-8-sig").splitlines()
    except OSError as error:
        raise RefusedError(f"--names: {file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RefusedError(f"--names: {file} is not a file of names: {error}") from error
    words = [line.strip() for line in lines]
    return [word for word in words if word and not word.startswith("#")]


COMMAND = Command(
    name="pick",
    summary="print chosen clips as a manifest, to render them again with other seeds or steps",
    epilog=f"""\
examples:
  nagfarm pick s3://renders/spring fox-3 sun-7 --seeds 3 > again.jsonl
  nagfarm pick s3://renders/spring --names picks.txt --seeds 5..8 --steps 25 > again.jsonl
  ls favourites | nagfarm pick s3://renders/spring --names - --steps 50 > final.jsonl
  nagfarm pick s3://renders/spring --state quarantined --set width=480 > smaller.jsonl
  nagfarm render again.jsonl --output s3://renders/spring

Prints one row a line, with every value that decides the pixels of the clip: rendered as it is, the
row is the same clip. NAME is a name, an id, or the name of a file that nagfarm export wrote. With
--seeds 3 each clip is asked for with the three lowest seeds above its own that the output does not
have yet; with --seeds 5..8 with these. A row that differs from its clip gets a name that says so,
such as fox-3-s8-25steps.

{FILTER_HELP}
With names as well, only those of the named clips that the options choose are picked.
""",
    options=PickOptions,
    run=run,
)
