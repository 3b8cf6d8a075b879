"""A run between its lease and its cluster: both are held while it renders, and given back.

Decides the order in which they are taken, and the end of a run whose cluster holds the main thread.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

from jobs.cluster.cluster_watch import ClusterWatch
from jobs.cluster.connection import connected
from jobs.ending import ExitCode, drained_by_signals, end_process
from jobs.errors import ClusterLostError
from jobs.notify.run_notices import RunNotices
from jobs.plan.plan import Plan
from jobs.plan.worker_kinds import check_capacity
from jobs.records.commit import lift_quarantine, quarantined_ids
from jobs.records.lease import Lease
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.lease_record import refuse_if_leased
from jobs.records.run_status import RunSummary
from jobs.run.progress.console import bind_run
from jobs.run.progress.log_entry import LogEntry, LogEvent, lost_entries
from jobs.run.run import Run
from jobs.store.store import Store
from jobs.text import counted

HELD_END_S = 3.0  # Ray itself ends the process some seconds later
Say = Callable[[LogEntry | str], None]


def render_leased(run: Run, say: Say, *, is_takeover: bool, lifts_quarantine: bool) -> RunSummary:
    """Render the plan of a run on the cluster while this process holds the lease of the output.

    Args:
        say: prints a line.
        is_takeover: True to take the output from another driver.
        lifts_quarantine: True to lift the quarantine of the clips to render.

    Raises:
        RefusedError: another driver holds the output, or the cluster cannot be used.
        JobError: as `Run.render`.
    """
    opened = run.opened
    lease_s = opened.config.store.lease_s
    if not is_takeover:
        refuse_if_leased(opened.store)  # before a cluster is started in vain
    with connected() as cluster:
        first = cluster.look()
        workers, machines, may_grow = opened.config.workers, first.machines(), cluster.may_grow
        check_capacity(opened.plan, opened.catalog, workers, machines, may_grow=may_grow)
        with (
            drained_by_signals(run.request_stop),
            _notified(run.notices, say),
            _kept(
                Lease.take(opened.store, run.run_id, lease_s, is_takeover=is_takeover),
                run.write_documents,
                say,
            ) as keeper,
            ClusterWatch(
                lambda reason: _end_held(run, keeper, reason), cluster.look, first
            ) as watch,
        ):
            if lifts_quarantine:
                _lift_quarantine(opened.store, opened.plan)
            bind_run(run.console, run.run_id)
            say(_started(run, len(first.nodes)))
            return run.render(keeper, watch, cluster)


def _started(run: Run, num_nodes: int) -> LogEntry:
    """Return the first entry of a run's log."""
    deadline = f", deadline {run.deadline}" if run.deadline else ""
    return LogEntry(
        f"run {run.run_id} on {counted(num_nodes, 'node')}, to {run.opened.store.uri}{deadline}",
        LogEvent.RUN_STARTED,
        num_clips=run.opened.plan.num_pending,
        output=run.opened.store.uri,
    )


def _end_held(run: Run, keeper: LeaseKeeper, reason: str) -> NoReturn:
    """Release the output and end the process, whose main thread waits for a lost cluster."""
    run.mark_stopped(ClusterLostError(reason))
    keeper.end_s = HELD_END_S
    keeper.release()
    run.notices.close(HELD_END_S)
    end_process(f"stopped: {reason}", ExitCode.STOPPED)


@contextmanager
def _kept(lease: Lease, write_documents: Callable[[], None], say: Say) -> Generator[LeaseKeeper]:
    """Keep a lease, and say so if the store did not take the last documents of the run."""
    keeper = LeaseKeeper(lease, write_documents)
    try:
        with keeper:
            yield keeper
    finally:
        if keeper.trouble is not None:
            say(f"the last status of this run could not be written: {keeper.trouble}")


@contextmanager
def _notified(notices: RunNotices, say: Say) -> Generator[None]:
    """Wait for the last notifications of a run, and name those that were lost."""
    try:
        yield
    finally:
        notices.close()
        for entry in lost_entries(notices):
            say(entry)


def _lift_quarantine(store: Store, plan: Plan) -> None:
    quarantined = quarantined_ids(store)
    for spec in plan.pending():
        if spec.clip_id in quarantined:
            lift_quarantine(store, spec.clip_id)
