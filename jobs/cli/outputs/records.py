"""`nagfarm records`: write the records of an output as tables for other programs."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.outputs.export import refuse_inside
from jobs.cli.outputs.verify_report import ID_DIGITS_SHOWN, progress_bar
from jobs.cli.pattern.clip_options import ClipOptions
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context
from jobs.errors import RefusedError
from jobs.overview.clip_filter import FILTER_HELP
from jobs.overview.clips import Unreadable, read_clips
from jobs.tables.files import FORMATS, RECORDS, STAGES, ClipTables, Format, refuse_other_file
from jobs.tables.writing import add_clips
from jobs.text import counted, shown
from jobs.whole_files import unwritable


@dataclass(frozen=True)
class RecordsOptions(ClipOptions):
    """The options of `nagfarm records`."""

    to: Format
    output: Path

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--to", choices=FORMATS, default="parquet", help="the format (default parquet)"
        )
        parser.add_argument(
            "--output",
            type=Path,
            default=Path(),
            metavar="PATH",
            help="a folder for records.* and stages.*, or the file for the clips, such as "
            "spring.parquet, beside which spring-stages.parquet is written (default: this folder)",
        )

    @property
    def paths(self) -> tuple[Path, Path]:
        """The file of the clips, and that of their stages.

        Raises:
            RefusedError: the name of a file ends otherwise than the format, or no file can have it.
        """
        path, end = self.output, f".{self.to}"
        try:
            path = path.expanduser()
            is_folder = path.is_dir() or not path.suffix
        except OSError as error:
            raise unwritable("--output", path, error) from error
        except RuntimeError as error:  # ~ and an unknown user
            raise RefusedError(f"--output {shown(str(path))}: {error}") from error
        if is_folder:
            return path / f"{RECORDS}{end}", path / f"{STAGES}{end}"
        if path.suffix != end:
            raise RefusedError(
                f"--output {shown(str(path))}: expected a folder, or a file that ends in {end}; "
                f"for another format give --to {' or --to '.join(FORMATS)}"
            )
        return path, path.with_name(f"{path.stem}-{STAGES}{end}")


def run(options: RecordsOptions, context: Context) -> int:
    """Write both tables, and print each object that has no row.

    Raises:
        RefusedError: no run has written to the output, or the files cannot be written.
        StoreError: the store does not answer, or refuses to list or read.
    """
    clips, stages = options.paths
    store = options.output_of_a_run()
    refuse_inside(store, clips)
    for path in (clips, stages):
        refuse_other_file(path)
    try:
        clips.parent.mkdir(parents=True, exist_ok=True)
        with (
            progress_bar(context.console, is_json=False) as bar,
            ClipTables(clips, stages, options.to) as tables,
        ):
            task = bar.add_task("", total=16**ID_DIGITS_SHOWN)
            num_unreadable = 0
            found = read_clips(store, with_scores=True)
            for clip in add_clips(tables, found, options.chosen.matches):
                if isinstance(clip, Unreadable):
                    num_unreadable += 1
                    context.say(f"no row: {clip.key}: {clip.message}")
                completed = int(clip.clip_id[:ID_DIGITS_SHOWN], 16)
                text = counted(tables.clips.num_rows, "clip")
                bar.update(task, completed=completed, description=text)
    except OSError as error:
        raise unwritable("--output", clips, error) from error
    num_clips, num_stages = tables.clips.num_rows, tables.stages.num_rows
    context.say(f"{clips}: {counted(num_clips, 'clip')}; {stages}: {counted(num_stages, 'stage')}")
    if num_unreadable:
        context.say(f"{counted(num_unreadable, 'object')} without a row")
    return EXIT_FINDINGS if num_unreadable else EXIT_OK


COMMAND = Command(
    name="records",
    summary="write records, failures and timings as Parquet or CSV, for other programs",
    epilog=f"""\
examples:
  nagfarm records s3://renders/spring
  nagfarm records s3://renders/spring --to csv --output spring.csv
  nagfarm records s3://renders/spring --state committed --prompt '*fox*' --output fox/
  duckdb -c "select model, count(*), avg(denoise_s) from 'records.parquet' group by all"

Writes two tables: records.*, a row a clip, with failed and quarantined clips; and stages.*, a row
a stage and a denoise step of each attempt. Both have clip_id. A file appears when it is whole, and
replaces an older table. A run writes the same for its own clips when it ends:
URI/runs/RUN/records.parquet and stages.parquet.

{FILTER_HELP}
exit codes:
  0 all is written, 3 some objects could not be read and have no row, 2 refused,
  69 the store does not answer
""",  # noqa: S608 an example
    options=RecordsOptions,
    run=run,
    has_log=True,
)
