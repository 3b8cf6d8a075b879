"""`nagfarm score`: measure the clips of an output, and print the figures of each group."""

import argparse
import contextlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.cli.outputs.clip_axes import AXES, AXES_HELP, axis_of
from jobs.cli.outputs.score_figures import figure_lines, figures_json
from jobs.cli.pattern.clip_options import ClipOptions
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context
from jobs.errors import RefusedError
from jobs.records.schema import ClipRecord
from jobs.run.progress.console import print_plain
from jobs.scoring.pool import Pool, PoolHere
from jobs.scoring.references import References, find_references
from jobs.scoring.scoring_run import Measures, Placed, ScoringRun, find_measures
from jobs.scoring.scoring_run import Progress as Counts
from jobs.settings.run_config import RunConfig
from jobs.text import counted
from pipelines.scoring.measures import (
    DEFAULT_QUESTION,
    DEFAULT_STILLS,
    MeasureSpec,
    measures_help,
    read_measure,
)

DEFAULT_MEASURES = ("frames",)
MAX_STILLS = 64
MAX_TROUBLE_SHOWN = 20


@dataclass(frozen=True)
class ScoreOptions(ClipOptions):
    """The options of `nagfarm score`."""

    measure: tuple[str, ...]
    stills: int
    question: str
    references: Path | None
    by: str
    here: bool
    fetch: bool
    json: bool

    @classmethod
    def has_states(cls) -> bool:
        return False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        add_measure_arguments(parser.add_argument)
        parser.add_argument(
            "--by",
            default="model,method,guidance",
            metavar="AXES",
            help="values by which clips are grouped in the figures, separated by commas (default "
            "model,method,guidance)",
        )
        parser.add_argument("--json", action="store_true", help="print the figures as JSON")

    def specs(self) -> tuple[MeasureSpec, ...]:
        """Return the measures. Raises RefusedError, ScoringError if an option is wrong."""
        return measure_specs(self.measure, self.stills, self.question)


def add_measure_arguments(add_argument: Callable[..., object]) -> None:
    """Add the options that choose measures and their workers, to a parser or a group of it."""
    add_argument(
        "--measure",
        action="append",
        default=[],
        metavar="NAME[=SOURCE[@REVISION]]",
        help="a measure, with a hub id or a folder of its weights; may be given again (default "
        f"{' '.join(DEFAULT_MEASURES)})",
    )
    add_argument(
        "--stills",
        type=int,
        default=DEFAULT_STILLS,
        metavar="N",
        help=f"evenly spaced frames that models look at (default {DEFAULT_STILLS})",
    )
    add_argument(
        "--question",
        default=DEFAULT_QUESTION,
        metavar="TEXT",
        help=f"the question of vqa (default {DEFAULT_QUESTION!r})",
    )
    add_argument(
        "--references",
        type=Path,
        metavar="FOLDER",
        help="pictures to which fid and pfid measure the distance",
    )
    add_argument(
        "--here", action="store_true", help="score in this process, without Ray, one clip at a time"
    )
    add_argument(
        "--fetch", action="store_true", help="download weights that are not on this machine"
    )


def measure_specs(
    written: tuple[str, ...], num_stills: int, question: str
) -> tuple[MeasureSpec, ...]:
    """Return the measures of the options.

    Raises:
        RefusedError, ScoringError: an option is wrong.
    """
    if not 1 <= num_stills <= MAX_STILLS:
        raise RefusedError(f"--stills: expected 1 to {MAX_STILLS}, got {num_stills}")
    chosen = written or DEFAULT_MEASURES
    return tuple(read_measure(text, num_stills, question) for text in chosen)


def run(options: ScoreOptions, context: Context) -> int:
    """Score the clips that lack a score, and print the figures of all.

    Raises:
        RefusedError: an option is wrong, or no run has written to the output.
        ScoringError: weights are missing or broken.
        StoreError: the store does not answer, or refuses to list or read.
        StoppedError: the workers were lost.
    """
    axes = [word.strip() for word in options.by.split(",") if word.strip()]
    read_axes = [axis_of("--by", word) for word in axes]
    specs = options.specs()
    references = find_wanted_references(specs, options.references)
    store = options.output_of_a_run()
    measures = find_measures(specs, say_aside if options.fetch else None)
    with (
        progress_bar(context.console, is_json=options.json) as on_step,
        pool_of(measures, store.uri, options.config(), is_here=options.here) as pool,
    ):
        scoring = ScoringRun(store, measures, options.chosen.matches, on_step)
        placed = score_all(scoring, references, pool)

    def groups_of(record: ClipRecord, _scores: object) -> list[tuple[str, ...]]:
        return [tuple(read(record) for read in read_axes)]

    groups = scoring.figures(groups_of, placed)
    say_trouble(scoring.progress)
    if options.json:
        context.say_json(figures_json(store.uri, measures, axes, groups, scoring.progress))
    else:
        for line in figure_lines(axes, groups):
            context.say(line)
        context.say(_counts_text(scoring.progress))
    return EXIT_FINDINGS if scoring.progress.num_trouble else EXIT_OK


@contextlib.contextmanager
def pool_of(measures: Measures, uri: str, config: RunConfig, *, is_here: bool) -> Generator[Pool]:
    """Yield the workers: one in this process, or those on a cluster, which is joined."""
    setup = measures.setup(uri, config)
    if is_here:
        yield PoolHere(setup)
        return
    from jobs.cluster.connection import connected
    from jobs.cluster.scoring.score_pool import RayPool

    with (
        connected() as cluster,
        contextlib.closing(RayPool(setup, config, cluster.look())) as pool,
    ):
        yield pool


def find_wanted_references(
    specs: tuple[MeasureSpec, ...], folder: Path | None
) -> References | None:
    """Return the references; None if no measure wants any.

    Raises:
        RefusedError: a measure wants some and no folder is named, or the folder holds none.
    """
    wanting = [spec.name for spec in specs if spec.kind.is_of_a_set]
    if not wanting:
        return None
    if folder is None:
        raise RefusedError(f"{wanting[0]}: name a folder of pictures with --references")
    return find_references(folder)


def score_all(scoring: ScoringRun, references: References | None, pool: Pool) -> Placed:
    """Score the clips, then the references; return the references' distributions."""
    scoring.score(pool)
    return None if references is None else scoring.place_references(references, pool)


@contextlib.contextmanager
def progress_bar(console: Console, *, is_json: bool) -> Generator[Callable[[Counts], None]]:
    """Yield a function that moves a bar on the terminal, or does nothing without one."""
    target = console if console.is_terminal and not is_json else Console(stderr=True)
    bar = Progress(
        TextColumn("scored"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=target,
        disable=not target.is_terminal,
        transient=True,
    )
    with bar:
        task = bar.add_task("", total=None)

        def move(counts: Counts) -> None:
            trouble = f"{counts.num_trouble:,} with trouble" if counts.num_trouble else ""
            bar.update(
                task, completed=counts.num_scored, total=counts.num_clips, description=trouble
            )

        yield move


def say_trouble(counts: Counts) -> None:
    """Print the clips that cannot be scored to stderr, the first of them."""
    for text in counts.trouble[:MAX_TROUBLE_SHOWN]:
        say_aside(f"not scored: {text}")
    if (left := counts.num_trouble - MAX_TROUBLE_SHOWN) > 0:
        say_aside(f"not scored: {left:,} more")


def say_aside(line: str) -> None:
    """Print a line for people to stderr, beside a result for programs."""
    print_plain(Console(stderr=True), line)


def _counts_text(counts: Counts) -> str:
    written = counted(counts.num_written, "score")
    return (
        f"{counted(counts.num_clips, 'clip')}, {counts.num_scored:,} with every score; {written} "
        "written"
    )


COMMAND = Command(
    name="score",
    summary="measure the clips: prompt, suppression, preference, distances, motion",
    epilog=f"""\
measures:
{measures_help()}

examples:
  nagfarm score ./spring                            motion and flicker, no weights needed
  nagfarm score ./spring --measure clip --measure vqa --fetch
  nagfarm score s3://renders/spring --measure clip=google/siglip-base-patch16-224
  nagfarm score s3://renders/spring --measure hps=./hpsv2 --measure reward=./image-reward
  nagfarm score ./spring --measure fid --measure pfid --references ./photos
  nagfarm score ./shapes --measure shapes --here --by method,steps

Each figure is written once, as scores/<clip_id>/<measure>-<digest>.json beside the clip's record:
run it again to go on, or for clips that are new. Other weights, a new prompt or a clip rendered
anew are scored anew. `nagfarm records` has the newest figures in its column `scores`, and the
gallery shows and sorts by them. Weights come from the Hugging Face cache or a folder, as
safetensors; nothing is downloaded without --fetch. A clip is asked about its negative prompt, cut
at commas, or about the note `unwanted` of its row.
{AXES_HELP}

exit codes:
  0 all is scored, 3 some clips could not be scored, 2 refused, 4 stopped: run it again,
  69 the store or the cluster does not answer
""",
    options=ScoreOptions,
    run=run,
    has_log=True,
)
assert {"model", "method", "guidance"} <= {*AXES}
