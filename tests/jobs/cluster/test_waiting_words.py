"""The devices for which a run says that it waits, while workers come and go. No Ray runs here."""

import time
from pathlib import Path
from typing import Any

import pytest

from jobs.cluster.answers import Answers
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.worker_pool import PoolPlan, WorkerPool
from jobs.cluster.worker_states import LoadingWorker, RunningWorker
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share
from jobs.settings.run_config import RunConfig
from pipelines.parallel_config import ONE_DEVICE
from tests.builders.specs import setup_for

NOBODY: Any = None
MISSING = "1 device that the cluster does not have: it has room for 2 workers"


@pytest.mark.parametrize(
    ("num_running", "asked_ago_s", "expected"),
    [
        (2, [60], MISSING),
        (1, [60, 0], MISSING),  # the place of a worker that has just been replaced
        (1, [60, 60], f"1 device, held by other jobs, and {MISSING}"),
        (1, [0, 0], None),
    ],
)
def test_a_place_that_has_just_become_free_is_not_held_by_other_jobs(
    tmp_path: Path, num_running: int, asked_ago_s: list[float], expected: str | None
) -> None:
    demand = Demand(ONE_DEVICE, RankResources(1), 100, 3)
    view = ClusterView({"node": {"CPU": 2.0}})
    share = Share(demand, Schedule(RunConfig(), 3))
    plan = PoolPlan(setup_for(tmp_path), lambda _: demand, iter(()))
    pool = WorkerPool(0, plan, share, RunConfig(), NOBODY, Answers())
    running = [RunningWorker(NOBODY, "") for _ in range(num_running)]
    now = time.monotonic()
    waiting = [LoadingWorker(NOBODY, now - ago, frozenset()) for ago in asked_ago_s]
    pool.workers = dict(enumerate([*running, *waiting]))
    assert pool.waiting(view, []) == expected
