"""`nagfarm report`: write the gallery of an output, or bring it up to date."""

import argparse
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.cli.outputs.export import is_inside
from jobs.cli.outputs.verify_report import ID_DIGITS_SHOWN, progress_bar
from jobs.cli.pattern.command import EXIT_OK, Command, Context, OutputOptions
from jobs.errors import EncoderKilledError, RefusedError, StoreRefusedError
from jobs.records.listing import has_run
from jobs.report.gallery import Gallery, Refreshed
from jobs.report.links import LINKS_HELP, links_of
from jobs.report.missing_posters import make_missing_posters
from jobs.report.page_files import PAGE
from jobs.report.target import Target
from jobs.store.folder_store import FolderStore
from jobs.store.store import Store
from jobs.store.uri import FolderLocation, parse_output_uri
from jobs.text import counted, shown

MAX_LINES = 10  # about clips without a poster


@dataclass(frozen=True)
class ReportOptions(OutputOptions):
    """The options of `nagfarm report`."""

    to: str | None
    links: str | None
    posters: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--to",
            metavar="FOLDER",
            help="write the gallery to this folder; without it, to report/ in the output",
        )
        parser.add_argument("--links", metavar="LINKS", help=LINKS_HELP)
        parser.add_argument(
            "--no-posters",
            dest="posters",
            action="store_false",
            help="do not make the posters and thumbnails of clips that have none",
        )


def run(options: ReportOptions, context: Context) -> int:
    """Write what is missing of the gallery.

    Raises:
        RefusedError: no run has written to the output, or an option does not suit it.
        StoreError: the output or the folder does not answer or refuses.
    """
    store = options.store()
    target = target_of(store, options.to)
    links = links_of(store, target, options.links)
    if not has_run(store):
        raise RefusedError(
            f"{store.uri}: expected the output of a run, got no object of any run; correct the "
            "URI, which `nagfarm render` prints"
        )
    if options.posters:
        _make_posters(store, context)
    with _shown(context, "reading clips") as advance:
        refreshed = Gallery(store, target, links, on_read=advance).refresh()
    for line in result_lines(refreshed, target):
        context.say(line)
    return EXIT_OK


def _make_posters(store: Store, context: Context) -> None:
    """Make missing posters; a clip without one shows its video in the gallery all the same."""
    num_made, trouble = 0, list[str]()
    try:
        with _shown(context, "making posters") as advance:
            for one in make_missing_posters(store):
                num_made += one.is_made
                if one.trouble:
                    trouble.append(f"no poster of {one.clip_id}: {one.trouble}")
                advance(one.clip_id)
    except (StoreRefusedError, EncoderKilledError, OSError) as error:
        trouble.append(f"no posters: {error}; --no-posters leaves them out")
    for line in trouble[:MAX_LINES]:
        context.say(line)
    if len(trouble) > MAX_LINES:
        context.say(f"and {len(trouble) - MAX_LINES:,} more without a poster")
    if num_made:
        context.say(f"made the posters of {counted(num_made, 'clip')}")


@contextmanager
def _shown(context: Context, what: str) -> Generator[Callable[[str], None]]:
    """Show a bar, and yield the function that moves it to a clip: ids are evenly spread hashes."""
    with progress_bar(context.console, is_json=False) as bar:
        task = bar.add_task(what, total=16**ID_DIGITS_SHOWN)
        yield lambda clip_id: bar.update(task, completed=int(clip_id[:ID_DIGITS_SHOWN], 16))


def target_of(store: Store, folder: str | None) -> Target:
    """Return the place of the gallery.

    Raises:
        RefusedError: expected another folder: one of this machine, apart from the output, empty.
    """
    if folder is None:
        return Target(store, is_output=True)
    location = parse_output_uri(folder)
    if not isinstance(location, FolderLocation):
        raise RefusedError(
            f"--to {shown(folder)}: expected a folder on this machine; the gallery in the output "
            "itself, without --to, can be served from S3"
        )
    if isinstance(store, FolderStore) and is_inside(store, location.path):
        raise RefusedError(
            f"--to {shown(folder)} is inside of {store.uri}; leave --to out for the gallery in the "
            "output, or choose another folder"
        )
    target = Target(FolderStore(location), is_output=False)
    if target.read_index() is None and _has_files(location.path):
        raise RefusedError(
            f"--to {shown(folder)}: expected a new or empty folder, or one with a gallery; it "
            "holds other files"
        )
    return target


def _has_files(path: Path) -> bool:
    return path.is_dir() and any(path.iterdir())


def result_lines(refreshed: Refreshed, target: Target) -> list[str]:
    """Return what the gallery shows, what was new of it, and where it is."""
    states = ", ".join(f"{number:,} {state}" for state, number in refreshed.counts.items())
    clips = counted(sum(refreshed.counts.values()), "clip")
    lines = [f"{clips} in the gallery: {states}; {refreshed.num_read:,} new or changed"]
    if refreshed.num_trouble:
        lines.append(
            f"{counted(refreshed.num_trouble, 'object')} could not be read; the gallery names "
            "them, and nagfarm verify says why"
        )
    if refreshed.links_expire_at is not None:
        lines.append(
            f"the links to clips work until {refreshed.links_expire_at}, for whoever has the page; "
            "with temporary credentials they end with these. Run the command again to renew them"
        )
    return [*lines, target.store.uri_of(target.key(PAGE))]


COMMAND = Command(
    name="report",
    summary="write the gallery of an output: a page of its clips, times and failures",
    epilog="""\
examples:
  nagfarm report ./spring                               then open spring/report/index.html
  nagfarm report s3://renders/spring                    behind any web server
  nagfarm report s3://renders/spring --to ./page --links presigned=2d
  nagfarm report s3://renders/spring --links https://cdn.example.com/spring

The gallery is a static page. It asks no server but the one that it came from, or the one of
--links. Run the command again to add new clips: what it has read before is not read again. `render
--report` does so while it renders, and pages that are open show the new clips. Clips without a
poster and a thumbnail get both, for which the output must be writable.

Picks stay in the browser that made them, which downloads them as a manifest for `nagfarm render`.

exit codes:
  0 written, 2 refused, 69 the store does not answer
""",
    options=ReportOptions,
    run=run,
    has_log=True,
)
