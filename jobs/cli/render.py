"""`nagfarm render`: render the clips of a manifest that are not in the output yet."""

import argparse
import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from jobs.cli.pattern.command import EXIT_OK, EXIT_QUARANTINE, Command, Context
from jobs.cli.pattern.manifest import MANIFEST_HELP, ManifestOptions, check_backends, open_for_run
from jobs.cli.pattern.wording import damaged_text, finished_entry
from jobs.cli.plan import add_force_argument, described_lines, plan_lines
from jobs.ending import stopped_by_signals
from jobs.errors import DeadlineReachedError, JobError, LeaseHeldError, RefusedError, StoppedError
from jobs.memory.planned import memory_needs, refuse_misfits
from jobs.plan.plan import make_plan
from jobs.records.commit import committed_ids, quarantined_ids
from jobs.records.damage import find_damaged, without_mp4
from jobs.records.keys import PREFIXES
from jobs.records.lease_record import refuse_if_leased, wait_until_free
from jobs.records.run_status import RunSummary
from jobs.run.broken_models import quarantine_broken
from jobs.run.closing import close_run, write_tables
from jobs.run.documents import OpenedManifest, new_run_id, notices_of
from jobs.run.progress.long_work import long_work
from jobs.text import counted
from jobs.timetable.clock_times import Deadline, WrittenDeadline
from jobs.timetable.options import (
    REPORT_EVERY_S,
    add_deadline_argument,
    add_report_argument,
    add_wait_argument,
)
from nag.errors import NagError
from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from jobs.run.run import Run


@dataclass(frozen=True)
class RenderOptions(ManifestOptions):
    """The options of `nagfarm render`."""

    retry_quarantined: bool
    repair: bool
    takeover: bool
    wait: float | None
    deadline: WrittenDeadline | None
    report: float | None
    force: bool = False

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        add_retry_argument(parser)
        parser.add_argument(
            "--repair",
            action="store_true",
            help="also render the committed clips of the manifest whose MP4 is missing or has "
            "another size than its record; reads every record",
        )
        held = parser.add_mutually_exclusive_group()
        held.add_argument(
            "--takeover",
            action="store_true",
            help="take the output from a dead driver before its lease expires",
        )
        add_wait_argument(held)
        add_deadline_argument(parser)
        add_report_argument(parser)
        add_force_argument(parser)

    @classmethod
    def read(cls, namespace: argparse.Namespace) -> Self:
        """Make the options; a word with `=` behind `--wait` or `--report` is a setting."""
        for name, default in (("wait", math.inf), ("report", REPORT_EVERY_S)):
            if isinstance(written := getattr(namespace, name), str):
                namespace.settings = [written, *namespace.settings]
                setattr(namespace, name, default)
        return super().read(namespace)


def add_retry_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry-quarantined",
        action="store_true",
        help="also render the clips of the manifest that are quarantined",
    )


def run(options: RenderOptions, context: Context) -> int:
    return render(options, context, time.time())


def render(options: RenderOptions, context: Context, started: float) -> int:
    """Render what is pending, and return the exit code.

    Args:
        started: moment at which the command began.

    Raises:
        RefusedError: refused before anything ran, as by `open_for_run`.
        StoppedError: the run began and could not go on.
    """
    wait_until = time.monotonic() + (options.wait or 0.0)
    while True:
        opened = _open(options, started)
        deadline = options.deadline and options.deadline.after(started, opened.calendar.zone)
        if options.wait is not None:
            with stopped_by_signals():
                left_s = max(wait_until - time.monotonic(), 0.0)
                if deadline is not None:
                    left_s = min(left_s, max(deadline.at - time.time(), 0.0))
                if wait_until_free(opened.store, context.say, left_s):
                    opened = _open(options, started)  # to plan again: others have rendered
        try:
            with _gallery(opened, options, context):
                return _render(opened, options, context, deadline)
        except LeaseHeldError:  # another driver that waited, too, was faster
            if options.wait is None:
                raise


def _gallery(
    opened: OpenedManifest, options: RenderOptions, context: Context
) -> AbstractContextManager[object]:
    """Return the refresh of the gallery beside a run, if one is wanted."""
    if options.report is None:
        return nullcontext()
    from jobs.run.gallery_refresh import GalleryRefresh

    return GalleryRefresh(opened.store, options.report, context.say)


def _open(options: RenderOptions, started: float) -> OpenedManifest:
    return _with_more_clips(open_for_run(options, started), options)


def _render(
    opened: OpenedManifest, options: RenderOptions, context: Context, deadline: Deadline | None
) -> int:
    for line in plan_lines(opened.plan, described_lines(opened)):
        context.say(line)
    if opened.plan.num_pending == 0:
        _quarantine_broken(opened)
        done = f"{opened.plan.num_done:,} of {opened.plan.num_clips:,} clips"
        context.say(f"nothing to render: {done} are already in {opened.store.uri}")
        return _report_rest(opened, opened.plan.num_quarantined + opened.plan.num_broken, context)
    if not options.force:
        refuse_misfits(memory_needs(opened.plan, opened.catalog, opened.config.workers))
    opened.store.check_access()
    try:
        summary = _run(opened, options, context, deadline)
    except (RefusedError, StoppedError):
        raise
    except (JobError, PipelineError, NagError) as error:
        raise StoppedError(str(error)) from error
    context.say(finished_entry(summary))
    what = "clips and records are in" if summary.num_committed else "no clip was committed to"
    context.say(f"{what} {opened.store.uri}")
    num_quarantined = opened.plan.num_quarantined + summary.num_quarantined
    return _report_rest(opened, num_quarantined, context)


def _quarantine_broken(opened: OpenedManifest) -> None:
    """Quarantine the clips of broken models in a run that has nothing to render."""
    if not (opened.plan.num_broken or opened.plan.mended):
        return
    refuse_if_leased(opened.store)
    for _ in quarantine_broken(opened.store, opened.plan, new_run_id()):
        pass


def _with_more_clips(opened: OpenedManifest, options: RenderOptions) -> OpenedManifest:
    """Plan again if the options add quarantined or damaged clips."""
    retries = options.retry_quarantined and opened.plan.num_quarantined > 0
    if not (retries or options.repair):
        return opened
    store, committed = opened.store, committed_ids(opened.store)
    quarantined = set[str]() if options.retry_quarantined else quarantined_ids(store)
    if options.repair:
        with long_work(f"reading the records of {store.uri}"):
            damaged = set(find_damaged(store))
        plan = make_plan(opened.manifest, committed - damaged, quarantined)
    else:
        plan = make_plan(opened.manifest, committed, quarantined, without_mp4(store, committed))
    check_backends(plan, opened.catalog)
    return replace(opened, plan=replace(plan, mended=opened.plan.mended))


def _run(
    opened: OpenedManifest, options: RenderOptions, context: Context, deadline: Deadline | None
) -> RunSummary:
    """Render the plan on the cluster while this process holds the lease of the output."""
    from jobs.run.leased_run import render_leased
    from jobs.run.run import Run
    from jobs.worker.setup import DiffusersLoader

    loader, run_id = context.loader or DiffusersLoader(), new_run_id()
    notices = notices_of(run_id, opened)
    run = Run(
        run_id, opened, loader, context.console, context.dropped, notices, deadline, options.force
    )
    try:
        summary = render_leased(
            run,
            context.say,
            is_takeover=options.takeover,
            lifts_quarantine=options.retry_quarantined,
        )
    except DeadlineReachedError:
        _write_tables(run, context)
        raise
    _write_tables(run, context)
    return summary


def _write_tables(run: "Run", context: Context) -> None:
    if run.ended is not None:
        for line in write_tables(run.opened.store, run.ended):
            context.say(line)


def _report_rest(opened: OpenedManifest, num_quarantined: int, context: Context) -> int:
    """Name the clips that are not there after this run, and return the exit code."""
    for line in close_run(opened):
        context.say(line)
    if opened.plan.num_damaged:
        context.say(damaged_text(opened.plan.num_damaged))
    if num_quarantined:
        context.say(
            f"quarantined: {counted(num_quarantined, 'clip')}; the reasons are in "
            f"{opened.store.uri}/{PREFIXES['quarantine']}, and render --retry-quarantined tries "
            "again"
        )
    return EXIT_QUARANTINE if num_quarantined or opened.plan.num_damaged else EXIT_OK


COMMAND = Command(
    name="render",
    summary="render what is missing, with progress; run it again to resume",
    epilog=f"""\
examples:
  nagfarm render spring.yaml
  nagfarm render spring.yaml workers.count=2 --profile cluster.yaml
  nagfarm render spring.yaml --limit 10             the first ten clips, as a trial
  nagfarm render spring.yaml --only hero spring-000004
  nagfarm render spring.yaml --retry-quarantined    try clips again that failed repeatedly
  nagfarm render spring.yaml --repair               render again what a record names and is gone
  nagfarm render spring.yaml --wait 30m             wait for another driver of the same output
  nagfarm render spring.yaml --deadline 08:00       begin nothing that ends later; see --time-zone
  nagfarm render spring.yaml --report               keep a gallery of the clips in report/
  nagfarm render spring.yaml --date 2026-01-31      go on with the {{date}} output of that day

A clip is done when its record is in the output; a second run renders only what is missing. SIGTERM,
SIGHUP and Ctrl-C stop a run in bounded time, a second signal at once. Under nohup, SIGHUP is
ignored. One driver at a time writes to an output: a second one is refused, or waits with --wait.
Each line of the log begins with the date and the time in UTC; --log-format json has an object a
line. With NAGFARM_WEBHOOK_URL set, a run posts to that webhook when it starts, ends or has many
failures.

{MANIFEST_HELP}""",
    options=RenderOptions,
    run=run,
    is_run=True,
)
