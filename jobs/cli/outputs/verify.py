"""`nagfarm verify`: check an output against its records and its manifest."""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.cli.outputs.verify_report import (
    ID_DIGITS_SHOWN,
    JsonReport,
    TextReport,
    Totals,
    advance,
    progress_bar,
)
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Command, Context, OutputOptions
from jobs.cli.pattern.manifest import open_written
from jobs.cli.pattern.model_options import add_models_argument
from jobs.errors import RecordError, RefusedError
from jobs.manifest.manifest import Manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import COMMIT_WITHIN_S
from jobs.records.keys import PREFIXES
from jobs.records.lease_record import current_lease
from jobs.records.listing import has_run
from jobs.records.salt import read_salt
from jobs.run.progress.hashing_bar import inspect_with_bar
from jobs.store.store import Store
from jobs.timetable.durations import read_duration
from jobs.upkeep.audit import AuditParams, audit_output
from jobs.upkeep.findings import KINDS, Finding


@dataclass(frozen=True)
class VerifyOptions(OutputOptions):
    """The options of `nagfarm verify`."""

    manifest: str | None
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
            help="younger objects are in flight, not orphans: a duration such as 90m or 7d "
            "(default 24h)",
        )
        parser.add_argument("--json", action="store_true", help="print one JSON document")


def run(options: VerifyOptions, context: Context) -> int:
    """Audit an output and print each finding when it is found.

    Raises:
        StoreError: the store does not answer, or refuses to list or read.
        RefusedError: an option is wrong, no run has written to the output, or a run is under way
            and --older-than is below an hour.
    """
    older_than_s = read_duration("--older-than", options.older_than)
    manifest = None if options.manifest is None else _manifest(options, options.manifest)
    store = options.store()
    if not has_run(store):
        raise RefusedError(
            f"{store.uri}: expected the output of a run, got no object of any run; correct the "
            "URI, which `nagfarm render` prints"
        )
    now = store.now()
    run_at_work, about_lease = _find_run(store, now)
    if run_at_work is not None and older_than_s < COMMIT_WITHIN_S:
        raise RefusedError(
            f"--older-than {options.older_than}: expected at least 1h while a run is under way, "
            f"{run_at_work}; its uploads have that long to be committed"
        )
    planned = manifest and replace(manifest, salt=read_salt(store) or b"").specs()
    params = AuditParams(now - older_than_s, decodes=options.decode)
    report = (
        JsonReport(context, decodes=options.decode)
        if options.json
        else TextReport(context, options.older_than, decodes=options.decode)
    )
    report.begin(store.uri, run_at_work)
    totals = Totals(num_findings=len(about_lease))
    for finding in about_lease:
        report.add(finding)
    with progress_bar(context.console, is_json=options.json) as bar:
        task = bar.add_task("", total=16**ID_DIGITS_SHOWN)
        for clip in audit_output(store, params, planned):
            totals = totals.plus(clip)
            for finding in clip.findings:
                report.add(finding)
            advance(bar, task, clip, totals)
    report.end(totals)
    return EXIT_FINDINGS if totals.num_findings else EXIT_OK


def _manifest(options: VerifyOptions, written: str) -> Manifest:
    config = options.config()
    return open_written(
        written,
        ModelCatalog(options.models, inspect_with_bar),
        config,
        output=options.uri,
        model=options.model,
    )


def _find_run(store: Store, now: float) -> tuple[str | None, list[Finding]]:
    """Return the run that is under way, and a finding if the lease cannot be read."""
    try:
        lease = current_lease(store)
    except RecordError as error:
        return None, [Finding("unreadable", "", PREFIXES["lease"], str(error))]
    return (str(lease) if lease is not None and lease.is_alive(now) else None), []


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

Reads every record, every MP4 that a record names, and every uploaded image and video. It proves
their sizes and SHA-256 by the bytes that the store returns. It changes nothing, needs only the
rights to list and to read, and holds no list of the clips, unless --manifest gives one. While a run
is under way it says so; objects younger than --older-than are in flight and not orphans. It does
not report images that no clip names; nagfarm gc lists them.

findings:
{_KINDS_HELP}

exit codes:
  0 no finding, 3 findings, 2 refused: a wrong option, or no run has written to the output,
  69 the store does not answer
""",
    options=VerifyOptions,
    run=run,
    has_log=True,
)
