"""One run, from a plan to its summary: the kinds of worker that it hands to the dispatch loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

from rich.console import Console

from jobs.cluster.cluster_watch import ClusterWatch
from jobs.cluster.connection import cluster_nodes
from jobs.cluster.dispatcher import Dispatcher
from jobs.cluster.joined_cluster import JoinedCluster
from jobs.cluster.ray_metrics import published_metrics
from jobs.errors import DeadlineReachedError, JobError, ManifestError, StoppedError
from jobs.guarded_output import DroppedOutput
from jobs.metrics.run_metrics import RunMetrics
from jobs.notify.run_notices import RunNotices
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE, SUMMARY_FILE
from jobs.records.lease_keeper import LeaseKeeper
from jobs.records.run_status import (
    RunDeadline,
    RunState,
    RunStatus,
    RunStop,
    RunSummary,
    write_status,
)
from jobs.records.schema import utc_iso
from jobs.run.broken_models import FailedKind, quarantine_broken, quarantine_kind, split_failed
from jobs.run.documents import OpenedManifest, RunDocuments
from jobs.run.failure_writer import FailureWriter
from jobs.run.input_uploads import InputUploads
from jobs.run.observer import RunObserver
from jobs.run.pool_plans import PoolPlans, TimeLimit, time_limit_of
from jobs.run.progress.console import ConsoleReport, print_entry, print_log
from jobs.run.progress.kind_tally import planned_kinds
from jobs.run.progress.log_entry import LogEntry, LogEvent, counts_entry, lost_entries
from jobs.run.progress.tally import RunTally
from jobs.shares.board import board_for
from jobs.shares.run_claims import Board
from jobs.shares.run_shares import RunShares
from jobs.tables.writing import EndedClips
from jobs.text import counted
from jobs.timetable.clock_times import Deadline
from jobs.worker.setup import ModelLoader

FINISH_WAIT_S = 600.0  # for the last failures to be written, at the end of a finished run
STATUS_EVERY_S = 1.0  # it takes a look at each clip in flight, and is written more seldom
END_S = 2.0  # at least so long for the last status, if the store answers


@dataclass(eq=False)
class Run:
    """One invocation of `render` on one output.

    Args:
        run_id: the id of the run.
        opened: the manifest, its plan, and all that the run works with.
        loader: loads the models of the workers.
        console: gets the progress.
        dropped: the driver's own output that could not be written.
        notices: the notifications of the run.
        deadline: moment at which the run must have ended; None without one.
        is_forced: True to render also clips that need more memory than a device has, by estimate.
    """

    run_id: str
    opened: OpenedManifest
    loader: ModelLoader
    console: Console
    dropped: DroppedOutput
    notices: RunNotices
    deadline: Deadline | None = None
    is_forced: bool = False
    _limit: TimeLimit | None = field(default=None, init=False)
    _dispatcher: Dispatcher | None = field(default=None, init=False)
    _stop_reason: str | None = field(default=None, init=False)
    _num_stop_requests: int = field(default=0, init=False)
    _manifest_error: ManifestError | None = field(default=None, init=False)
    _documents: RunDocuments | None = field(default=None, init=False)
    _status: RunStatus | None = field(default=None, init=False)
    _status_due_s: float = field(default=0.0, init=False)
    _summary: RunSummary | None = field(default=None, init=False)
    _metrics: RunMetrics = field(default_factory=RunMetrics, init=False)

    def request_stop(self, reason: str) -> None:
        """End the run soon, in bounded time; at once if called again. Safe in a signal handler."""
        self._stop_reason = reason
        self._num_stop_requests += 1
        self.notices.hurry()
        if self._dispatcher is not None:
            self._dispatcher.request_stop(reason)

    def mark_stopped(self, error: JobError) -> None:
        """Let the last status be that of a stopped run, from a thread, if Ray holds this one."""
        if self._documents is not None and self._status is not None:
            self._status = replace(self._status, state="stopped", stop=RunStop.of(error))
            self.notices.ended(self._documents.summary(self._status))

    @property
    def ended(self) -> EndedClips | None:
        """The clips that the run has ended so far; None before it began."""
        if self._documents is None:
            return None
        tally = self._documents.tally
        return EndedClips(self.run_id, tally.committed, tally.num_failures, tally.num_quarantined)

    def write_documents(self) -> None:
        """Write the latest status and, once there is one, the summary.

        The thread that keeps the lease calls it, at the end of the run for the last time.
        """
        if self._status is not None:
            write_status(self.opened.store, self._status)
        if self._summary is not None:
            write_run(self.opened.store, self.run_id, SUMMARY_FILE, asdict(self._summary))

    def render(
        self, keeper: LeaseKeeper, watch: ClusterWatch, cluster: JoinedCluster
    ) -> RunSummary:
        """Render everything that is pending, while this process is connected to a cluster.

        Raises:
            ModelFailedError: a model's clips could not go on, and were left as they are.
            DeadlineReachedError: clips are left at the deadline.
            LeaseLostError: another driver has taken the output.
            ClusterLostError: the cluster is gone, or has no node left.
            StoreError, StoppedError: see `Dispatcher.run`.
        """
        store, plan, started = self.opened.store, self.opened.plan, time.monotonic()
        tally = self._new_tally(started)
        documents = self._documents = RunDocuments(
            self.run_id, self.opened, tally, self.dropped, RunDeadline.of(self.deadline)
        )
        self._begin(documents)
        writer = FailureWriter(store, self.run_id)
        report = ConsoleReport(self.console, tally.num_clips, started)
        board = board_for(cluster, self.run_id, self.opened.config.workers)

        def update_or_end() -> None:
            if self._stop_reason is not None:
                self._update_status(documents, "draining", StoppedError(self._stop_reason))
                keeper.shorten()
            elif self._limit is not None and self._limit.seconds_left() <= 0:
                self._update_status(documents, "draining", DeadlineReachedError("the deadline"))
            elif time.monotonic() >= self._status_due_s:
                self._update_status(documents, "rendering")
            for message in (*watch.news(), *board.news()):
                report.say(message)
            self._notify(documents, report)
            watch.check()
            keeper.check()
            writer.check()

        self._metrics = published_metrics(plan, tally.ledger.cost)
        observer = RunObserver(tally, report, writer.add, update_or_end, self._metrics)
        try:
            with report, board:
                self._count(quarantine_broken(store, plan, self.run_id), tally, update_or_end)
                with self._new_uploads(report) as uploads:
                    failed = self._render_kinds(observer, watch, board, uploads)
                self._give_up(failed, tally, update_or_end)
                if self._limit is not None:
                    self._limit.check(tally)
        except BaseException as error:
            self._summary = self._end(documents, error)
            self._note_stop(self._summary)
            self._close(writer, keeper, is_finished=False)
            raise
        self._summary = self._end(documents)
        self._close(writer, keeper, is_finished=True)
        try:
            writer.check()
        except JobError as error:
            self._summary = self._end(documents, error)
            raise
        return self._summary

    def _begin(self, documents: RunDocuments) -> None:
        """Write run.json, and send the message that the run has begun."""
        run_file = documents.run(utc_iso(time.time()), cluster_nodes())
        write_run(self.opened.store, self.run_id, RUN_FILE, run_file.document())
        self.notices.started()

    def _new_tally(self, started: float) -> RunTally:
        opened = self.opened
        num_clips = opened.plan.num_pending + opened.plan.num_broken
        kinds = planned_kinds(opened.plan, opened.catalog)
        return RunTally(num_clips, started, kinds, opened.config.costs)

    def _new_uploads(self, report: ConsoleReport) -> InputUploads:
        opened = self.opened
        max_outage_s = opened.config.retry.max_outage_s
        return InputUploads(opened.store, opened.manifest, max_outage_s, report.say)

    def _notify(self, documents: RunDocuments, report: ConsoleReport) -> None:
        """Send a notification if many attempts have failed, and name those that were lost."""

        def summary() -> RunSummary:
            now = time.monotonic()
            return documents.summary(documents.status("rendering", now, utc_iso(time.time())))

        self.notices.failed(documents.tally.num_failures, summary)
        for entry in lost_entries(self.notices):
            report.say(entry)

    def _render_kinds(
        self, observer: RunObserver, watch: ClusterWatch, board: Board, uploads: InputUploads
    ) -> list[FailedKind]:
        """Render the clips of all kinds of worker, and return the kinds that could not go on."""
        config = self.opened.config
        if not watch.view.may_grow:
            config = replace(config, workers=replace(config.workers, wait_for_resources_s=0.0))
        if self.deadline is not None:
            self._limit = time_limit_of(self.deadline, self.opened)
        plans = PoolPlans(
            self.run_id,
            self.opened,
            config,
            self.loader,
            self._limit,
            self._end_changed,
            uploads,
            self.is_forced,
        )
        shares = RunShares(board, self.run_id, config.workers.weight, config.workers.count)
        seconds_left = None if self._limit is None else self._limit.seconds_left
        self._dispatcher = Dispatcher(config, observer, lambda: watch.view, shares, seconds_left)
        if self._stop_reason is not None:
            self._dispatcher.request_stop(self._stop_reason)
        try:
            failed = self._dispatcher.run(plans.all())
        except DeadlineReachedError:
            return []  # the check of what is left follows
        if self._manifest_error is not None:
            raise StoppedError(str(self._manifest_error))
        return [FailedKind(one.kind, one.error, one.num_committed) for one in failed]

    def _give_up(
        self, failed: Sequence[FailedKind], tally: RunTally, check: Callable[[], None]
    ) -> None:
        """Quarantine the clips of broken models; end the run if the clips of others are left."""
        store, plan = self.opened.store, self.opened.plan
        broken, stopped = split_failed(failed, plan, tally.num_committed)
        for one in broken:
            ids = quarantine_kind(store, plan, one, self.run_id, tally.quarantined)
            num_clips = self._count(ids, tally, check, one.kind.model)
            text = f"quarantined {counted(num_clips, 'further clip')}: {one.reason}"
            tally.kinds.give_up(one.kind.model, one.kind.parallel)
            self._say(LogEntry(text, LogEvent.CLIPS_QUARANTINED, "error", model=one.kind.model))
        if stopped:
            raise stopped[0].error

    def _count(
        self,
        quarantined: Iterator[bool],
        tally: RunTally,
        check: Callable[[], None],
        model: str | None = None,
    ) -> int:
        """Count the clips that are quarantined one by one, while nothing ends the run."""
        num_clips = 0
        try:
            for is_quarantined in quarantined:
                num_clips += is_quarantined
                tally.num_quarantined += is_quarantined
                if is_quarantined:
                    self._metrics.clip_quarantined(model)
                check()
                if self._stop_reason is not None:
                    raise StoppedError(self._stop_reason)
        except (
            ManifestError
        ) as error:  # it changed meanwhile; a refusal would mean that nothing ran
            raise StoppedError(str(error)) from error
        return num_clips

    def _end_changed(self, error: ManifestError) -> None:
        """End the run as a request does, since its manifest was rewritten."""
        self._manifest_error = error
        self.request_stop(str(error))

    def _close(self, writer: FailureWriter, keeper: LeaseKeeper, *, is_finished: bool) -> None:
        """Write the last failures in bounded time. No commit depends on them.

        A run that was stopped ends soon; one that has finished waits for an outage of the store.
        """
        workers, retry = self.opened.config.workers, self.opened.config.retry
        num_requests = self._num_stop_requests
        wait_s = min(FINISH_WAIT_S, retry.max_outage_s) if is_finished else workers.drain_s
        num_unwritten = writer.close(
            0.0 if num_requests > 1 else wait_s,
            lambda: self._num_stop_requests > num_requests or keeper.is_lost,
        )
        if num_unwritten:
            self._say(f"{counted(num_unwritten, 'failure')} could not be written to the store")
        if self._num_stop_requests or not is_finished:
            keeper.end_s = max(workers.drain_s, END_S)

    def _end(self, documents: RunDocuments, error: BaseException | None = None) -> RunSummary:
        """Set the last status, with the error that ended a stopped run, and return the summary."""
        if isinstance(error, KeyboardInterrupt) and self._stop_reason is not None:
            error = StoppedError(self._stop_reason)  # a second signal, after a request to stop
        documents.tally.ledger.end(time.monotonic())
        self._metrics.publish(time.monotonic())  # else those of a second ago stand for good
        state = "finished" if error is None else "stopped"
        summary = documents.summary(self._update_status(documents, state, error))
        self.notices.ended(summary)
        return summary

    def _update_status(
        self, documents: RunDocuments, state: RunState, error: BaseException | None = None
    ) -> RunStatus:
        self._status_due_s = time.monotonic() + STATUS_EVERY_S
        stop = None if error is None else RunStop.of(error)
        self._status = documents.status(state, time.monotonic(), utc_iso(time.time()), stop)
        return self._status

    def _note_stop(self, summary: RunSummary) -> None:
        message = "the run stopped" if summary.stop is None else summary.stop.message
        print_entry(self.console, counts_entry(summary, message, LogEvent.RUN_STOPPED))

    def _say(self, entry: LogEntry | str) -> None:
        print_log(self.console, entry)
