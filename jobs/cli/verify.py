"""`nagfarm verify`: check an output against its records and its manifest."""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from jobs.cli.command import (
    EXIT_FINDINGS,
    EXIT_OK,
    Command,
    Context,
    OutputOptions,
    add_models_argument,
)
from jobs.cli.gc import age_s
from jobs.cli.wording import megabytes, printable
from jobs.errors import RecordError, RefusedError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.manifest.values_file import MAX_VALUES_FILE_BYTES
from jobs.records.audit import KINDS, AuditParams, ClipAudit, Finding, audit_output
from jobs.records.commit import COMMIT_WITHIN_S
from jobs.records.keys import PREFIXES
from jobs.records.lease_record import current_lease
from jobs.records.listing import has_run
from jobs.store.store import Store, read_object
from jobs.text import counted
from jobs.types import ClipSpec

ID_DIGITS_SHOWN = 8  # digits of a clip id; ids are hashes, so that they show the share that is done


@dataclass(frozen=True)
class VerifyOptions(OutputOptions):
    """The options of `nagfarm verify`."""

    manifest: Path | None
    model: str | None
    models: Path | None
    decode: bool
    older_than: str
    json: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--manifest",
            type=Path,
            metavar="FILE",
            help="also find clips of this manifest that are missing, and clips that it lacks",
        )
        parser.add_argument("--model", metavar="NAME", help="the model of rows that name none")
        add_models_argument(parser)
        parser.add_argument(
            "--decode", action="store_true", help="also decode every MP4 and read its tags"
        )
        parser.add_argument(
            "--older-than",
            default="24h",
            metavar="AGE",
            help="younger objects are in flight, not orphans: a number and s, m, h or d "
            "(default 24h)",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")


@dataclass(frozen=True)
class Totals:
    """The counts of an audit.

    Args:
        num_bytes: bytes of MP4s that were read.
        num_young: objects that nothing names and that are too young to be called orphans.
    """

    num_committed: int = 0
    num_quarantined: int = 0
    num_bytes: int = 0
    num_young: int = 0
    num_findings: int = 0

    def plus(self, clip: ClipAudit) -> "Totals":
        return Totals(
            self.num_committed + clip.is_committed,
            self.num_quarantined + (clip.is_quarantined and not clip.is_committed),
            self.num_bytes + clip.num_bytes,
            self.num_young + clip.num_young,
            self.num_findings + len(clip.findings),
        )


def run(options: VerifyOptions, context: Context) -> int:
    """Audit an output and print each finding when it is found.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
        RefusedError: an option is wrong, no run has written to the output, or a run is under way
            and --older-than is below an hour.
    """
    older_than_s, now = age_s(options.older_than), time.time()
    store = options.store()
    planned = None if options.manifest is None else _planned(options, options.manifest)
    if not has_run(store):
        raise RefusedError(
            f"{store.uri}: expected the output of a run, got no object of any run; correct the "
            "URI, which `nagfarm render` prints"
        )
    run_at_work, about_lease = _find_run(store, now)
    if run_at_work is not None and older_than_s < COMMIT_WITHIN_S:
        raise RefusedError(
            f"--older-than {options.older_than}: expected at least 1h while a run is under way, "
            f"{run_at_work}; its uploads have that long to be committed"
        )
    params = AuditParams(now - older_than_s, decodes=options.decode)
    report = _JsonReport(context) if options.json else _TextReport(context)
    report.begin(store.uri, run_at_work)
    totals = Totals(num_findings=len(about_lease))
    for finding in about_lease:
        report.add(finding)
    with _progress(context.console, is_json=options.json) as bar:
        task = bar.add_task("", total=16**ID_DIGITS_SHOWN)
        for clip in audit_output(store, params, planned):
            totals = totals.plus(clip)
            for finding in clip.findings:
                report.add(finding)
            _advance(bar, task, clip, totals)
    report.end(totals, options)
    return EXIT_FINDINGS if totals.num_findings else EXIT_OK


def _planned(options: VerifyOptions, path: Path) -> Iterator[ClipSpec]:
    config = options.config()
    manifest = open_manifest(
        path,
        ModelCatalog(options.models),
        lambda uri: read_object(uri, config.store, MAX_VALUES_FILE_BYTES),
        output=options.uri,
        model=options.model,
    )
    return manifest.specs()


def _find_run(store: Store, now: float) -> tuple[str | None, list[Finding]]:
    """Return the run that is under way, and a finding if the lease cannot be read."""
    try:
        lease = current_lease(store)
    except RecordError as error:
        return None, [Finding("unreadable", "", PREFIXES["lease"], str(error))]
    return (str(lease) if lease is not None and lease.is_alive(now) else None), []


class _TextReport:
    """Prints one line for each finding, and a summary."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def begin(self, uri: str, run_at_work: str | None) -> None:
        if run_at_work is not None:
            self._say(f"a run is under way on {uri}: {run_at_work}")

    def add(self, finding: Finding) -> None:
        self._say(f"{finding.kind}: {finding.message}")

    def end(self, totals: Totals, options: VerifyOptions) -> None:
        if totals.num_young:
            self._say(
                f"{counted(totals.num_young, 'object')} without a record, younger than "
                f"{options.older_than}: in flight, not orphans"
            )
        read = "read and decoded" if options.decode else "read"
        self._say(
            f"{counted(totals.num_committed, 'clip')} committed, "
            f"{totals.num_quarantined:,} quarantined, {megabytes(totals.num_bytes)} {read}: "
            f"{counted(totals.num_findings, 'finding')}"
        )

    def _say(self, text: str) -> None:
        self._context.say(printable(text))


class _JsonReport:
    """Prints one JSON document, a finding a line, so that no list of them is held in memory."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._head = ""  # not printed yet; empty once the first finding is printed

    def begin(self, uri: str, run_at_work: str | None) -> None:
        head = json.dumps({"uri": uri, "run_under_way": run_at_work})
        self._head = f'{head.removesuffix("}")}, "findings": ['

    def add(self, finding: Finding) -> None:
        comma = "" if self._head else ","
        if self._head:
            self._context.say(self._head)
            self._head = ""
        self._context.say(f"{comma}{json.dumps(asdict(finding))}")

    def end(self, totals: Totals, options: VerifyOptions) -> None:
        counts = json.dumps({"decoded": options.decode, **asdict(totals)})
        self._context.say(f"{self._head}], {counts.removeprefix('{')}")


def _progress(console: Console, *, is_json: bool) -> Progress:
    """Return a bar on the terminal; it is disabled if it would be mixed into the output."""
    stderr = Console(stderr=True)
    if console.is_terminal:
        target, is_shown = console, not is_json
    else:
        target, is_shown = stderr, stderr.is_terminal
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
        console=target,
        disable=not is_shown,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _advance(bar: Progress, task: TaskID, clip: ClipAudit, totals: Totals) -> None:
    """Move the bar to the clip's place among all ids: they are hashes, evenly spread."""
    if clip.clip_id:
        bar.update(
            task,
            completed=int(clip.clip_id[:ID_DIGITS_SHOWN], 16),
            description=f"{totals.num_committed:,} clips, {megabytes(totals.num_bytes)}, "
            f"{totals.num_findings:,} findings",
        )


_WIDTH = max(map(len, KINDS))
_KINDS_HELP = "\n".join(f"  {kind:<{_WIDTH}}  {text}" for kind, text in KINDS.items())
COMMAND = Command(
    name="verify",
    summary="check that every committed clip is there, whole, and that nothing is left over",
    epilog=f"""\
examples:
  nagfarm verify s3://renders/spring
  nagfarm verify s3://renders/spring --manifest spring.yaml --decode
  nagfarm verify s3://renders/spring --json | jq '.findings[].kind'

Reads every record and every MP4 that a record names, and proves its size and its SHA-256 by the
bytes that the store returns. It changes nothing, needs only the rights to list and to read, and
holds no list of the clips, unless --manifest gives one. While a run is under way it says so;
objects younger than --older-than are in flight and not orphans.

findings:
{_KINDS_HELP}

exit codes:
  0 no finding, 3 findings, 2 refused: a wrong option, the store does not answer, or no run has
  written to the output
""",
    options=VerifyOptions,
    run=run,
)
