"""The simulation of a plan: the kinds of worker that a run of it would have, and their clips.

Decides how many workers of each kind the simulated devices hold. Loads without torch.
"""

from collections.abc import Callable

from jobs.errors import RefusedError
from jobs.manifest.rows import Catalog
from jobs.plan.buckets import PlanBucket
from jobs.plan.plan import Plan
from jobs.plan.worker_kinds import WorkerKind, check_capacity, demand_of, pending_kinds
from jobs.settings.run_config import RunConfig
from jobs.settings.worker_config import WorkerConfig
from jobs.simulation.conditions import ClipKind, Conditions, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.measured import Measured, read_measured
from jobs.simulation.outcome import Outcome
from jobs.simulation.predicted import card_for, timings_of
from jobs.simulation.simulate import SimulatedKind, simulate
from jobs.store.store import Store


def timings_of_plan(
    plan: Plan,
    catalog: Catalog,
    store: Store,
    read_one: Callable[[], None] = lambda: None,
    workers: WorkerConfig | None = None,
) -> tuple[Timings, Measured]:
    """Return the times of the pending clips of a plan.

    Args:
        store: output whose records tell the times.
        read_one: called after each record, for a progress bar.
        workers: settings of the workers, which may ask for a kind of GPU.

    Returns:
        The times, and all that the records say.

    Raises:
        RefusedError: the times of some clips are unknown, or nothing is left to render.
        StoreError: the store does not answer.
    """
    buckets = _pending(plan)
    if not buckets:
        raise RefusedError("--simulate: nothing is left to render")
    models = {bucket.model for bucket in buckets}
    measured = read_measured(store, models, read_one)
    settings = workers or WorkerConfig()
    cards = {
        model: card_for(model, measured, settings.placement_of(model).accelerator_type)
        for model in models
    }
    return timings_of(buckets, measured, catalog, store.uri, cards), measured


def simulate_plan(
    plan: Plan,
    catalog: Catalog,
    config: RunConfig,
    timings: Timings,
    conditions: Conditions,
    clip_ended: Callable[[], None] = lambda: None,
) -> Outcome:
    """Simulate a run of a plan.

    Args:
        clip_ended: called after each clip, for a progress bar.

    Raises:
        PlacementError: a group has more ranks than the devices can hold.
    """
    farm = Farm(conditions)
    machines, workers = farm.machines(config.workers.num_cpus), config.workers.anywhere()
    check_capacity(plan, catalog, workers, machines, may_grow=False)
    kinds = [
        SimulatedKind(
            kind,
            demand_of(kind, catalog, workers, machines, num_clips),
            _clips_of(kind, plan),
        )
        for kind, num_clips in pending_kinds(plan).items()
    ]
    return simulate(kinds, timings, farm, config, clip_ended)


def _clips_of(kind: WorkerKind, plan: Plan) -> list[tuple[ClipKind, int]]:
    """Return the clips of a kind of worker, in the plan's order, which is that of the run."""
    return [
        (ClipKind.of(bucket), bucket.num_pending)
        for bucket in _pending(plan)
        if (bucket.model, bucket.parallel) == (kind.model, kind.parallel)
    ]


def _pending(plan: Plan) -> list[PlanBucket]:
    return [bucket for bucket in plan.buckets if bucket.num_pending]
