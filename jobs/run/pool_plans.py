"""The kinds of worker of a run, each with the setup of its workers, its demand and its clips."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.worker_pool import PoolPlan
from jobs.config import RunConfig
from jobs.errors import ManifestError
from jobs.plan.buckets import Part
from jobs.plan.demand import Demand
from jobs.plan.worker_kinds import (
    WorkerKind,
    demand_of,
    pending_clips,
    pending_kinds,
    pending_parts,
)
from jobs.run.documents import OpenedManifest
from jobs.run.time_limit import TimeLimit
from jobs.types import ClipSpec
from jobs.worker.setup import ModelLoader, WorkerSetup


@dataclass(frozen=True)
class PoolPlans:
    """Makes the plan of each kind of worker of one run.

    Args:
        config: settings of the run.
        limit: time until the deadline; None for a run without one.
        manifest_changed: called with the error if the manifest changes while it is read.
    """

    run_id: str
    opened: OpenedManifest
    config: RunConfig
    loader: ModelLoader
    limit: TimeLimit | None
    manifest_changed: Callable[[ManifestError], None]

    def all(self) -> list[PoolPlan]:
        """Return the plans of all kinds that have pending clips, in the order of the run."""
        return [self._of(kind, number) for kind, number in pending_kinds(self.opened.plan).items()]

    def _of(self, kind: WorkerKind, num_pending: int) -> PoolPlan:
        opened, config = self.opened, self.config
        entry = opened.catalog.get(kind.model)

        def demand(view: ClusterView) -> Demand:
            machines, workers = view.machines(), config.workers
            wanted = demand_of(kind, opened.catalog, workers, machines, num_pending)
            return replace(wanted, held_by_driver=view.held_by_driver)

        setup = WorkerSetup(
            model=entry.config,
            weights=entry.weights,
            output=opened.store.uri,
            store=opened.config.store,
            encoding=opened.config.encoding,
            spool_folder=config.workers.spool_folder,
            run_id=self.run_id,
            num_threads=config.workers.num_cpus,
            loader=self.loader,
            parallel=kind.parallel,
        )
        if (limit := self.limit) is None:
            return PoolPlan(setup, demand, self._clips(kind, lambda _: True))
        return PoolPlan(
            setup,
            demand,
            self._clips(kind, partial(limit.has_room_for, kind)),
            limit.paces[kind],
            partial(limit.has_room_for_any, kind, pending_parts(opened.plan, kind)),
        )

    def _clips(self, kind: WorkerKind, is_wanted: Callable[[Part], bool]) -> Iterator[ClipSpec]:
        """Yield the clips of a kind until the manifest changes."""
        try:
            yield from pending_clips(self.opened.plan, kind, is_wanted)
        except ManifestError as error:
            self.manifest_changed(error)
