"""Scoring on a real Ray cluster and a real S3 server, through the death of a worker."""

import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import ray

from infra.local.ray_cluster import LocalRay
from infra.local.s3_server import LocalS3
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.scoring.score_pool import RayPool
from jobs.errors import RefusedError
from jobs.records.keys import list_keys
from jobs.scoring.scoring_run import ScoringRun, find_measures
from jobs.scoring.tasks import ClipTask, Task, TaskOutcome
from jobs.settings.run_config import RunConfig
from jobs.store.store import Store, open_store
from pipelines.scoring.measures import MeasureSpec
from tests.builders.shapes_outputs import commit_drawn, drawn

pytestmark = [pytest.mark.cluster, pytest.mark.s3]

CONFIG = RunConfig()
NUM_CLIPS = 6


@pytest.fixture
def store(s3_environment: LocalS3) -> Store:
    store = open_store("s3://renders/scored", CONFIG.store)
    for seed in range(NUM_CLIPS):
        commit_drawn(store, drawn("a red circle", "red", seed=seed, colour="red", shape="circle"))
    return store


class KillingPool(RayPool):
    """A pool of which a worker is killed before it gets its next task."""

    is_killed = False

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        for outcome in super().run(tasks):
            if not self.is_killed:
                self.is_killed = True
                worker = next(one for one in self._workers.values() if one.is_loaded)
                pid: Any = ray.get(worker.actor.__ray_call__.remote(lambda _actor: os.getpid()))
                os.kill(pid, signal.SIGKILL)
            yield outcome


def test_every_clip_is_scored_once_although_a_worker_dies(
    ray_driver: LocalRay, store: Store
) -> None:
    measures = find_measures((MeasureSpec("shapes"), MeasureSpec("frames")))
    scoring = ScoringRun(store, measures, lambda _clip: True)
    setup = measures.setup(store.uri, CONFIG)
    view = ClusterView({"a": {"CPU": 2.0}})
    pool = KillingPool(setup, CONFIG, view)
    scoring.score(pool)
    assert pool.is_killed
    assert pool._num_lost <= 1
    assert max(pool._workers) >= 1, "another worker was started"
    pool.close()
    assert (scoring.progress.num_scored, scoring.progress.num_trouble) == (NUM_CLIPS, 0)
    assert sum(1 for _ in list_keys(store, "score")) == 2 * NUM_CLIPS
    (group,) = scoring.figures(lambda _record, _scores: [()])
    figures = {figure.title: figure for figure in group.figures}
    assert figures["shapes.negative_seen"].mean == 1.0
    assert figures["frames.motion"].num == NUM_CLIPS

    gone = replace(setup, measures=(MeasureSpec("hps", "/gone"),))
    broken = RayPool(gone, CONFIG, view)
    with pytest.raises(RefusedError, match="a worker cannot load the measures: measure hps"):
        list(broken.run([ClipTask("0" * 32, ("hps",))]))
    broken.close()
