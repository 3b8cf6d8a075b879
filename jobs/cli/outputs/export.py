"""`nagfarm export`: copy committed clips to a folder, under their names."""

import argparse
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress, TaskID

from jobs.cli.outputs.verify_report import ID_DIGITS_SHOWN, progress_bar
from jobs.cli.pattern.clip_options import ClipOptions
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context
from jobs.cli.pattern.wording import megabytes
from jobs.errors import RefusedError, StoppedError, StoreError
from jobs.export.copying import Exported, ExportParams, export_clips
from jobs.export.name_template import FIELDS, NameTemplate
from jobs.export.target_folder import TargetFolder
from jobs.overview.clip_filter import FILTER_HELP
from jobs.store.folder_store import FolderStore
from jobs.store.store import Store
from jobs.store.uri import FolderLocation, parse_output_uri
from jobs.text import counted, shown

MAX_REMARKS = 20  # printed of files with other names than their clips


@dataclass(frozen=True)
class ExportOptions(ClipOptions):
    """The options of `nagfarm export`."""

    folder: str
    name: str
    records: bool
    check: bool

    @classmethod
    def has_states(cls) -> bool:
        return False

    @classmethod
    def add_positionals(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("folder", metavar="FOLDER", help="the folder for the files")

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--name",
            default="{name}",
            metavar="PATTERN",
            help="the names of the files, such as '{name}_{seed}' (default '{name}')",
        )
        parser.add_argument(
            "--records", action="store_true", help="also copy each record, as NAME.json"
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="read the files that are there already; without this, size and time are enough",
        )


@dataclass
class _Totals:
    """The counts of an export so far."""

    outcomes: Counter[str]
    num_bytes: int = 0
    num_remarks: int = 0

    def add(self, one: Exported) -> None:
        self.outcomes[one.outcome] += 1
        self.num_bytes += one.num_bytes

    def text(self) -> str:
        copied = f"copied {counted(self.outcomes['copied'], 'file')}, {megabytes(self.num_bytes)}"
        there = f", {self.outcomes['there']:,} were there" if self.outcomes["there"] else ""
        failed = f", {self.outcomes['failed']:,} failed" if self.outcomes["failed"] else ""
        return copied + there + failed


def run(options: ExportOptions, context: Context) -> int:
    """Copy the clips, and print each that could not be copied.

    Raises:
        RefusedError: no run has written to the output, or the folder cannot take the files.
        StoppedError: the store or the folder failed on the way.
    """
    template = NameTemplate(options.name)
    path = _folder(options.folder)
    refuse_inside(options.store(), path)
    store = options.output_of_a_run()
    totals = _Totals(Counter())
    params = ExportParams(options.records, options.check, options.chosen, template)
    with TargetFolder(path) as folder, progress_bar(context.console, is_json=False) as bar:
        task = bar.add_task("", total=16**ID_DIGITS_SHOWN)
        try:
            folder.remove_abandoned()
            for one in export_clips(store, folder, params):
                totals.add(one)
                _remark(one, totals, context)
                _advance(bar, task, one, totals)
        except (StoreError, OSError) as error:
            what = str(error)
            if isinstance(error, OSError):
                what = f"{path} cannot be written to: {error.strerror}"
            raise StoppedError(f"{what}; {totals.text()}; run it again to go on") from error
    if totals.num_remarks > MAX_REMARKS:
        context.say(f"and {totals.num_remarks - MAX_REMARKS:,} more under other names")
    context.say(f"{totals.text()}: {path}")
    return EXIT_FINDINGS if totals.outcomes["failed"] else EXIT_OK


def _folder(written: str) -> Path:
    """Return the folder that the command line names, in one of the forms of an output."""
    location = parse_output_uri(written)
    if not isinstance(location, FolderLocation):
        raise RefusedError(
            f"{shown(written)}: expected a folder on this machine; copy it to S3 afterwards, by a "
            "tool of S3"
        )
    return location.path


def refuse_inside(store: Store, path: Path) -> None:
    """Refuse a path inside of the output. Raises RefusedError."""
    if isinstance(store, FolderStore) and is_inside(store, path):
        raise RefusedError(
            f"{path} is inside of {store.uri}, which holds the objects of runs alone; choose "
            "another folder"
        )


def is_inside(store: FolderStore, path: Path) -> bool:
    """Return True for a path inside of an output."""
    # unlike Path.resolve, it takes links in a circle, which whoever opens the path refuses
    place, output = os.path.realpath(path), os.path.realpath(store.location.path)
    return Path(place).is_relative_to(output)


def _remark(one: Exported, totals: _Totals, context: Context) -> None:
    if one.outcome == "failed":
        context.say(f"not copied: {one.name or one.clip_id}: {one.message}")
    elif one.message:
        totals.num_remarks += 1
        if totals.num_remarks <= MAX_REMARKS:
            context.say(one.message)


def _advance(bar: Progress, task: TaskID, one: Exported, totals: _Totals) -> None:
    """Move the bar to the clip's place among all ids: they are hashes, evenly spread."""
    bar.update(task, completed=int(one.clip_id[:ID_DIGITS_SHOWN], 16), description=totals.text())


COMMAND = Command(
    name="export",
    summary="copy committed clips to a folder, under their names",
    epilog=f"""\
examples:
  nagfarm export s3://renders/spring spring/
  nagfarm export s3://renders/spring spring/ --records
  nagfarm export s3://renders/spring foxes/ --prompt '*fox*' --seed 5..8
  nagfarm export s3://renders/spring spring/ --name '{{name}}_{{method}}_{{seed}}'

Copies every chosen clip as NAME.mp4, once for each of its names, and compares the bytes with the
digest of its record. A name that is unsafe for a file is changed. If two clips have the same name,
also but for upper and lower case, the id of the second one stands behind it, as in NAME-ID.mp4.

{FILTER_HELP}
fields of --name:
{chr(10).join(f"  {'{' + name + '}':<18} {text}" for name, text in FIELDS.items())}

No file is replaced and no link is followed. Run it again to go on, or to fetch what was committed
since: a file with the size and the time of its clip's commit is not copied again.

exit codes:
  0 all is copied, 3 some clips could not be copied, 2 refused, 4 stopped
""",
    options=ExportOptions,
    run=run,
    has_log=True,
)
