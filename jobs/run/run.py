"""One run, from a plan to its summary: models and kinds of worker one after the other, each on a pool of its own."""

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from jobs.cluster.connection import cluster_machines, cluster_nodes
from jobs.cluster.dispatcher import Dispatcher
from jobs.config import RunConfig
from jobs.errors import LeaseLostError, StoreError
from jobs.manifest.manifest import Manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.plan.plan import Plan
from jobs.plan.worker_kinds import WorkerKind, count_workers, pending_kinds, reserved_by
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE, SUMMARY_FILE
from jobs.records.lease import LeaseKeeper
from jobs.records.run_status import RunState, RunStatus, write_status
from jobs.records.schema import utc_iso
from jobs.run.failure_ledger import FailureLedger
from jobs.run.progress import RunProgress
from jobs.store.store import Store
from jobs.worker.provenance import installed_versions
from jobs.worker.setup import ModelLoader, WorkerSetup

FINISH_WAIT_S = 600.0  # for the last failures to be written, at the end of a finished run


@dataclass(frozen=True)
class RunSummary:
    """What became of a run.

    Args:
        is_finished: nothing is left to start; False where the run was stopped.
        num_committed: clips whose record is in the store since this run.
        num_quarantined: clips given up by this run.
        num_failures: attempts that failed, those that a later one made good included.
        wall_s: of the whole run.
        stage_totals_s: the workers' seconds per stage, added up; stages overlap, so the sum may exceed `wall_s`.
    """

    run_id: str
    is_finished: bool
    num_committed: int
    num_quarantined: int
    num_failures: int
    num_workers_lost: int
    wall_s: float
    stage_totals_s: dict[str, float]


def new_run_id() -> str:
    """Sorts by time, and is no other run's."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


@dataclass(eq=False)
class Run:
    """What a run works with, and how far it is."""

    run_id: str
    manifest: Manifest
    plan: Plan
    catalog: ModelCatalog
    store: Store
    config: RunConfig
    console: Console
    loader: ModelLoader
    _dispatcher: Dispatcher | None = field(default=None, init=False)
    _stop_reason: str | None = field(default=None, init=False)
    _status: RunStatus | None = field(default=None, init=False)

    def request_stop(self, reason: str) -> None:
        """Ends the run soon, in bounded time. Safe in a signal's handler."""
        self._stop_reason = reason
        if self._dispatcher is not None:
            self._dispatcher.request_stop(reason)

    def write_status(self) -> None:
        """Writes how far the run is, as it last was; called in the thread that keeps the lease."""
        if self._status is not None:
            write_status(self.store, self._status)

    def render(self, keeper: LeaseKeeper) -> RunSummary:
        """Renders everything that is pending. Needs `ray.init` to have been called.

        Raises:
            NoWorkersError: the cluster has no room, or the weights do not load.
            LeaseLostError: another driver has taken the output.
            TooManyFailuresError, StoreError, StoppedError: see `Dispatcher.run`.
        """
        write_run(self.store, self.run_id, RUN_FILE, self._document())
        ledger = FailureLedger(self.store, self.run_id)

        def turn() -> None:
            self._status = self._current_status(
                progress, "draining" if self._stop_reason else "rendering"
            )
            if keeper.lost is not None:
                raise LeaseLostError(keeper.lost)
            if ledger.refused is not None:
                raise ledger.refused

        progress = RunProgress(self.plan.num_pending, self.console, ledger.add, turn)
        is_finished = False
        try:
            with progress:
                for kind, num_pending in pending_kinds(self.plan).items():
                    self._render_kind(kind, num_pending, progress)
            is_finished = True
        finally:
            self._close(progress, ledger, keeper, is_finished=is_finished)
        return self._summary(progress, is_finished=is_finished)

    def _close(
        self,
        progress: RunProgress,
        ledger: FailureLedger,
        keeper: LeaseKeeper,
        *,
        is_finished: bool,
    ) -> None:
        """Writes what is left to write, in bounded time. What is committed does not rest on it."""
        is_urgent = self._stop_reason is not None or keeper.lost is not None
        wait_s = self.config.workers.drain_s if is_urgent else FINISH_WAIT_S
        was_stopped = self._stop_reason
        num_unwritten = ledger.close(
            wait_s, lambda: self._stop_reason != was_stopped or keeper.lost is not None
        )
        if num_unwritten:
            reason = (
                f": {ledger.refused}" if ledger.refused else ", for the store takes nothing now"
            )
            self._complain(f"{num_unwritten} failures could not be written down{reason}")
        self._status = self._current_status(progress, "finished" if is_finished else "stopped")
        summary = self._summary(progress, is_finished=is_finished)
        try:
            write_run(self.store, self.run_id, SUMMARY_FILE, asdict(summary))
            self.write_status()
        except StoreError as error:
            self._complain(f"no summary of this run in the store: {error}")

    def _complain(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _summary(self, progress: RunProgress, *, is_finished: bool) -> RunSummary:
        return RunSummary(
            run_id=self.run_id,
            is_finished=is_finished,
            num_committed=progress.num_committed,
            num_quarantined=progress.num_quarantined,
            num_failures=progress.num_failures,
            num_workers_lost=progress.num_workers_lost,
            wall_s=progress.elapsed_s,
            stage_totals_s=dict(progress.stage_totals_s),
        )

    def _current_status(self, progress: RunProgress, state: RunState) -> RunStatus:
        elapsed_s, now = progress.elapsed_s, utc_iso(time.time())
        return RunStatus(
            run_id=self.run_id,
            state=state,
            updated_at=now,
            num_clips=self.plan.num_clips,
            num_done_before=self.plan.num_done,
            num_committed=progress.num_committed,
            num_quarantined=progress.num_quarantined,
            num_failures=progress.num_failures,
            num_workers=progress.num_workers,
            num_workers_lost=progress.num_workers_lost,
            elapsed_s=elapsed_s,
            clips_per_hour=progress.num_committed / elapsed_s * 3600
            if progress.num_committed
            else None,
            eta_s=progress.left_s,
            in_flight=progress.in_flight.clips(),
            last_failures=progress.last_failures,
        )

    def _render_kind(self, kind: WorkerKind, num_pending: int, progress: RunProgress) -> None:
        entry, workers, machines = (
            self.catalog.get(kind.model),
            self.config.workers,
            cluster_machines(),
        )
        reserved = reserved_by(kind, self.catalog, workers, machines)
        setup = WorkerSetup(
            model=entry.config,
            weights=entry.weights,
            output=self.store.uri,
            store=self.config.store,
            encoding=self.config.encoding,
            spool_folder=workers.spool_folder,
            run_id=self.run_id,
            num_threads=workers.num_cpus,
            loader=self.loader,
            parallel=kind.parallel,
        )
        num_workers = count_workers(kind.parallel, reserved, workers, machines, num_pending)
        self._dispatcher = Dispatcher(setup, self.config, num_workers, reserved.num_gpus, progress)
        if self._stop_reason is not None:
            self._dispatcher.request_stop(self._stop_reason)
        self._dispatcher.run(spec for spec in self.plan.pending() if kind.renders(spec))

    def _document(self) -> dict[str, Any]:
        """run.json: what was asked for, of what, on what."""
        return {
            "run_id": self.run_id,
            "started_at": utc_iso(time.time()),
            "manifest": {"name": self.manifest.name, "sha256": self.manifest.digest},
            "num_clips": self.plan.num_clips,
            "num_done_before": self.plan.num_done,
            "num_pending": self.plan.num_pending,
            "config": asdict(self.config),
            "models": [
                asdict(self.catalog.get(name).identity)
                for name in {g.model: None for g in self.plan.groups}
            ],
            "versions": installed_versions(),
            "nodes": cluster_nodes(),
        }
