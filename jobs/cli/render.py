"""`nagfarm render`: render the clips of a manifest that are not in the output yet."""

import argparse
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from jobs.cli.command import EXIT_OK, EXIT_QUARANTINE, EXIT_STOPPED, Command, Context
from jobs.cli.manifest import MANIFEST_HELP, ManifestOptions, check_backends, open_for_run
from jobs.cli.plan import damaged_text, described_lines, plan_lines
from jobs.cli.wording import finished_entry
from jobs.ending import drained_by_signals, end_process, stopped_by_signals
from jobs.errors import ClusterLostError, JobError, LeaseHeldError, RefusedError, StoppedError
from jobs.notify.run_notices import RunNotices
from jobs.plan.plan import Plan, make_plan
from jobs.plan.worker_kinds import check_capacity
from jobs.records.commit import committed_ids, lift_quarantine, quarantined_ids
from jobs.records.damage import find_damaged, without_mp4
from jobs.records.keys import PREFIXES
from jobs.records.lease import Lease
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.lease_record import refuse_if_leased, wait_until_free
from jobs.records.run_status import RunSummary
from jobs.run.broken_models import quarantine_broken
from jobs.run.closing import close_run
from jobs.run.console import bind_run
from jobs.run.documents import OpenedManifest, new_run_id, notices_of
from jobs.run.log_entry import LogEntry, LogEvent, lost_entries
from jobs.run.long_work import long_work
from jobs.store.store import Store
from jobs.text import counted
from nag.errors import NagError
from pipelines.errors import PipelineError

if TYPE_CHECKING:
    from jobs.run.run import Run

HELD_END_S = 3.0  # Ray itself ends the process some seconds later


@dataclass(frozen=True)
class RenderOptions(ManifestOptions):
    """The options of `nagfarm render`."""

    retry_quarantined: bool
    repair: bool
    takeover: bool
    wait: bool

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
        held.add_argument(
            "--wait",
            action="store_true",
            help="wait while another driver holds the output, instead of exit code 75",
        )


def add_retry_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--retry-quarantined",
        action="store_true",
        help="also render the clips of the manifest that are quarantined",
    )


def render(options: RenderOptions, context: Context) -> int:
    """Render what is pending, and return the exit code.

    Raises:
        RefusedError: refused before anything ran, as by `open_for_run`.
        StoppedError: the run began and could not go on.
    """
    while True:
        opened = _open(options, context)
        try:
            return _render(opened, options, context)
        except LeaseHeldError:  # another driver that waited, too, was faster
            if not options.wait:
                raise


def _open(options: RenderOptions, context: Context) -> OpenedManifest:
    """Open the manifest; with --wait, plan again what other drivers left when they ended."""
    opened = _with_more_clips(open_for_run(options), options)
    if options.wait:
        with stopped_by_signals():
            if wait_until_free(opened.store, context.say):
                return _with_more_clips(open_for_run(options), options)
    return opened


def _render(opened: OpenedManifest, options: RenderOptions, context: Context) -> int:
    for line in plan_lines(opened.plan, described_lines(opened)):
        context.say(line)
    if opened.plan.num_pending == 0:
        _quarantine_broken(opened)
        done = f"{opened.plan.num_done:,} of {opened.plan.num_clips:,} clips"
        context.say(f"nothing to render: {done} are already in {opened.store.uri}")
        return _report_rest(opened, opened.plan.num_quarantined + opened.plan.num_broken, context)
    opened.store.check_access()
    try:
        summary = _run(opened, options, context)
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


def _run(opened: OpenedManifest, options: RenderOptions, context: Context) -> RunSummary:
    """Render the plan on the cluster while this process holds the lease of the output."""
    from jobs.cluster.cluster_watch import ClusterWatch
    from jobs.cluster.connection import connected
    from jobs.run.run import Run
    from jobs.worker.setup import DiffusersLoader

    loader, run_id = context.loader or DiffusersLoader(), new_run_id()
    notices = notices_of(run_id, opened)
    run = Run(run_id, opened, loader, context.console, context.dropped, notices)
    lease_s, is_takeover = opened.config.store.lease_s, options.takeover
    if not is_takeover:
        refuse_if_leased(opened.store)  # before a cluster is started in vain
    with connected() as cluster:
        first = cluster.look()
        workers, machines, may_grow = opened.config.workers, first.machines(), cluster.may_grow
        check_capacity(opened.plan, opened.catalog, workers, machines, may_grow=may_grow)
        with (
            drained_by_signals(run.request_stop),
            _notified(notices, context),
            _kept(
                Lease.take(opened.store, run.run_id, lease_s, is_takeover=is_takeover),
                run.write_documents,
                context,
            ) as keeper,
            ClusterWatch(
                lambda reason: _end_held(run, keeper, reason), cluster.look, first
            ) as watch,
        ):
            if options.retry_quarantined:
                _lift_quarantine(opened.store, opened.plan)
            nodes = counted(len(first.nodes), "node")
            bind_run(context.console, run.run_id)
            context.say(
                LogEntry(
                    f"run {run.run_id} on {nodes}, to {opened.store.uri}",
                    LogEvent.RUN_STARTED,
                    num_clips=opened.plan.num_pending,
                    output=opened.store.uri,
                )
            )
            return run.render(keeper, watch, cluster)


def _end_held(run: "Run", keeper: LeaseKeeper, reason: str) -> NoReturn:
    """Release the output and end the process, whose main thread waits for a lost cluster."""
    run.mark_stopped(ClusterLostError(reason))
    keeper.end_s = HELD_END_S
    keeper.release()
    run.notices.close(HELD_END_S)
    end_process(f"stopped: {reason}", EXIT_STOPPED)


@contextmanager
def _kept(
    lease: Lease, write_documents: Callable[[], None], context: Context
) -> Generator[LeaseKeeper]:
    """Keep a lease, and say so if the store did not take the last documents of the run."""
    keeper = LeaseKeeper(lease, write_documents)
    try:
        with keeper:
            yield keeper
    finally:
        if keeper.trouble is not None:
            context.say(f"the last status of this run could not be written: {keeper.trouble}")


@contextmanager
def _notified(notices: RunNotices, context: Context) -> Generator[None]:
    """Wait for the last notifications of a run, and name those that were lost."""
    try:
        yield
    finally:
        notices.close()
        for entry in lost_entries(notices):
            context.say(entry)


def _lift_quarantine(store: Store, plan: Plan) -> None:
    quarantined = quarantined_ids(store)
    for spec in plan.pending():
        if spec.clip_id in quarantined:
            lift_quarantine(store, spec.clip_id)


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
  nagfarm render spring.yaml --wait                 wait for another driver of the same output

A clip is done when its record is in the output; a second run renders only what is missing. SIGTERM,
SIGHUP and Ctrl-C stop a run in bounded time, a second signal at once. Under nohup, SIGHUP is
ignored. One driver at a time writes to an output: a second one is refused, or waits with --wait.
Each line of the log begins with the date and the time in UTC; --log-format json has an object a
line.

{MANIFEST_HELP}""",
    options=RenderOptions,
    run=render,
    is_run=True,
)
