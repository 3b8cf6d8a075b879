"""One run, from a plan to its summary: the models one after the other, each on a pool of workers of its own."""

import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console

from jobs.catalog import CatalogEntry, ModelCatalog
from jobs.config import RunConfig
from jobs.dispatch import Dispatcher, cluster_nodes, cluster_resources, count_workers
from jobs.manifest import Manifest
from jobs.plan import Plan
from jobs.progress import RunProgress
from jobs.records import (
    RUN_FILE,
    FailureRecord,
    QuarantineRecord,
    record_key,
    utc_iso,
    write_failure,
    write_quarantine,
    write_run,
)
from jobs.retry import Decision, GiveUp
from jobs.store import Store
from jobs.types import ClipFailed
from jobs.worker import LoadModel, WorkerSetup, installed_versions
from pipelines.config import ModelConfig
from pipelines.family import ModelFamily
from pipelines.loading import ModelWeights, verify_weights


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


def load_model(config: ModelConfig, weights: ModelWeights, num_threads: int) -> ModelFamily:
    """Verifies the weights on the worker's machine and loads them; imported there: the driver needs no torch."""
    from pipelines import registry

    verify_weights(config, weights)
    return registry.load_model(config, weights, num_threads)


@dataclass(frozen=True)
class Run:
    """What a run works with."""

    run_id: str
    manifest: Manifest
    plan: Plan
    catalog: ModelCatalog
    store: Store
    config: RunConfig
    console: Console
    load_model: LoadModel = field(default=load_model)

    def render(self) -> RunSummary:
        """Renders everything that is pending. Needs `ray.init` to have been called.

        Raises:
            NoWorkersError: the cluster has no room, or the weights do not load.
        """
        started = time.monotonic()
        write_run(self.store, self.run_id, RUN_FILE, self._document())
        progress = RunProgress(self.plan.num_pending, self.console, self._record_failure)
        is_finished = False
        try:
            with progress:
                for name in dict.fromkeys(group.model for group in self.plan.groups if group.num_pending):
                    self._render_model(self.catalog.get(name), progress)
            is_finished = True
        finally:
            summary = self._summary(progress, time.monotonic() - started, is_finished=is_finished)
            write_run(self.store, self.run_id, "summary.json", asdict(summary))
        return summary

    def _summary(self, progress: RunProgress, wall_s: float, *, is_finished: bool) -> RunSummary:
        return RunSummary(
            run_id=self.run_id,
            is_finished=is_finished,
            num_committed=progress.num_committed,
            num_quarantined=progress.num_quarantined,
            num_failures=progress.num_failures,
            num_workers_lost=progress.num_workers_lost,
            wall_s=wall_s,
            stage_totals_s=dict(progress.stage_totals_s),
        )

    def _render_model(self, entry: CatalogEntry, progress: RunProgress) -> None:
        name = entry.identity.name
        resources = cluster_resources()
        num_gpus = int(
            entry.config.device == "cuda" or (entry.config.device == "auto" and resources.get("GPU", 0) >= 1)
        )
        num_pending = sum(group.num_pending for group in self.plan.groups if group.model == name)
        setup = WorkerSetup(
            model=entry.config,
            weights=entry.weights,
            output=self.store.uri,
            store=self.config.store,
            encoding=self.config.encoding,
            run_id=self.run_id,
            num_threads=self.config.workers.num_cpus,
            load_model=self.load_model,
        )
        num_workers = count_workers(resources, self.config, num_gpus, num_pending)
        specs = (spec for spec in self.plan.pending() if spec.model.name == name)
        Dispatcher(setup, self.config, num_workers, num_gpus, progress).run(specs)

    def _record_failure(self, failed: ClipFailed, decision: Decision) -> None:
        now = utc_iso(time.time())
        write_failure(self.store, FailureRecord.of(failed, self.run_id, now))
        is_done = isinstance(decision, GiveUp) and self.store.exists(record_key(failed.clip_id))
        if isinstance(decision, GiveUp) and not is_done:  # it may have died between its commit and its answer
            write_quarantine(self.store, QuarantineRecord.of(failed, self.run_id, decision.reason, now))

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
            "models": [asdict(self.catalog.get(name).identity) for name in {g.model: None for g in self.plan.groups}],
            "versions": installed_versions(),
            "nodes": cluster_nodes(),
        }
