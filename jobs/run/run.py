"""One run, from a plan to its summary: one pool of workers after another, each of one kind."""

import secrets
import time
from dataclasses import asdict, dataclass, field

from rich.console import Console

from jobs.cluster.cluster_watch import ClusterWatch
from jobs.cluster.connection import cluster_machines, cluster_nodes
from jobs.cluster.dispatcher import Dispatcher
from jobs.errors import ClusterLostError, LeaseLostError, StoreError
from jobs.plan.worker_kinds import WorkerKind, count_workers, pending_kinds, reserved_by
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE, SUMMARY_FILE
from jobs.records.lease import LeaseKeeper
from jobs.records.run_status import RunState, RunStatus, RunSummary, write_status
from jobs.records.schema import utc_iso
from jobs.run.console import ConsoleReport, print_plain
from jobs.run.documents import OpenedManifest, RunDocuments
from jobs.run.failure_writer import FailureWriter
from jobs.run.observer import RunObserver
from jobs.run.tally import RunTally
from jobs.text import counted
from jobs.worker.setup import ModelLoader, WorkerSetup

FINISH_WAIT_S = 600.0  # for the last failures to be written, at the end of a finished run


def new_run_id() -> str:
    """Return a unique id; ids sort by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


@dataclass(eq=False)
class Run:
    """One invocation of `render` on one output.

    Args:
        run_id: the id of the run.
        opened: the manifest, its plan, and all that the run works with.
        loader: loads the models of the workers.
        console: gets the progress.
    """

    run_id: str
    opened: OpenedManifest
    loader: ModelLoader
    console: Console
    _dispatcher: Dispatcher | None = field(default=None, init=False)
    _stop_reason: str | None = field(default=None, init=False)
    _status: RunStatus | None = field(default=None, init=False)

    def request_stop(self, reason: str) -> None:
        """End the run soon, in bounded time. Safe in a signal handler."""
        self._stop_reason = reason
        if self._dispatcher is not None:
            self._dispatcher.request_stop(reason)

    def write_status(self) -> None:
        """Write the latest status; called in the thread that keeps the lease."""
        if self._status is not None:
            write_status(self.opened.store, self._status)

    def render(self, keeper: LeaseKeeper, watch: ClusterWatch) -> RunSummary:
        """Render everything that is pending, while this process is connected to a cluster.

        Raises:
            NoWorkersError: the cluster has no room, or the weights do not load.
            LeaseLostError: another driver has taken the output.
            ClusterLostError: the cluster is gone, or has no node left.
            TooManyFailuresError, StoreError, StoppedError: see `Dispatcher.run`.
        """
        store, plan, started = self.opened.store, self.opened.plan, time.monotonic()
        tally = RunTally(plan.num_pending, started)
        documents = RunDocuments(self.run_id, self.opened, tally)
        write_run(
            store, self.run_id, RUN_FILE, documents.run(utc_iso(time.time()), cluster_nodes())
        )
        writer = FailureWriter(store, self.run_id)
        report = ConsoleReport(self.console, plan.num_pending, started)

        def update_or_end() -> None:
            self._update_status(documents, "draining" if self._stop_reason else "rendering")
            for message in watch.news():
                report.say(message)
            if watch.lost is not None:
                raise ClusterLostError(watch.lost)
            if keeper.lost is not None:
                raise LeaseLostError(keeper.lost)
            if writer.refused is not None:
                raise writer.refused

        observer = RunObserver(tally, report, writer.add, update_or_end)
        is_finished = False
        try:
            with report:
                for kind, num_pending in pending_kinds(plan).items():
                    self._render_kind(kind, num_pending, observer, watch)
            is_finished = True
        finally:
            summary = self._close(documents, writer, keeper, is_finished=is_finished)
        return summary

    def _render_kind(
        self, kind: WorkerKind, num_pending: int, observer: RunObserver, watch: ClusterWatch
    ) -> None:
        opened, workers, machines = self.opened, self.opened.config.workers, cluster_machines()
        entry = opened.catalog.get(kind.model)
        reserved = reserved_by(kind, opened.catalog, workers, machines)
        setup = WorkerSetup(
            model=entry.config,
            weights=entry.weights,
            output=opened.store.uri,
            store=opened.config.store,
            encoding=opened.config.encoding,
            spool_folder=workers.spool_folder,
            run_id=self.run_id,
            num_threads=workers.num_cpus,
            loader=self.loader,
            parallel=kind.parallel,
        )
        num_workers = count_workers(kind.parallel, reserved, workers, machines, num_pending)
        self._dispatcher = Dispatcher(
            setup,
            opened.config,
            num_workers,
            reserved.num_gpus,
            observer,
            lambda: watch.draining,
        )
        if self._stop_reason is not None:
            self._dispatcher.request_stop(self._stop_reason)
        self._dispatcher.run(spec for spec in opened.plan.pending() if kind.renders(spec))

    def _close(
        self,
        documents: RunDocuments,
        writer: FailureWriter,
        keeper: LeaseKeeper,
        *,
        is_finished: bool,
    ) -> RunSummary:
        """Write the last failures and the summary in bounded time. No commit depends on them."""
        is_urgent = self._stop_reason is not None or keeper.lost is not None
        wait_s = self.opened.config.workers.drain_s if is_urgent else FINISH_WAIT_S
        was_stopped = self._stop_reason
        num_unwritten = writer.close(
            wait_s, lambda: self._stop_reason != was_stopped or keeper.lost is not None
        )
        if num_unwritten:
            reason = str(writer.refused or "the store accepts no writes now")
            self._say(f"{counted(num_unwritten, 'failure')} could not be written: {reason}")
        last = self._update_status(documents, "finished" if is_finished else "stopped")
        summary = documents.summary(last)
        try:
            write_run(self.opened.store, self.run_id, SUMMARY_FILE, asdict(summary))
            self.write_status()
        except StoreError as error:
            self._say(f"the summary of this run could not be written: {error}")
        return summary

    def _update_status(self, documents: RunDocuments, state: RunState) -> RunStatus:
        self._status = documents.status(state, time.monotonic(), utc_iso(time.time()))
        return self._status

    def _say(self, text: str) -> None:
        print_plain(self.console, text)
