"""What becomes of a group that is kept for later, on a real Ray cluster."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import ray._private.state

from infra.local.ray_cluster import LocalRay
from jobs.config import RunConfig, WorkerConfig
from jobs.placing import GroupWorkers, Placed
from jobs.worker import LoadedWorker
from pipelines.parallel.config import ParallelConfig
from tests.fakes.ranks import load_fake_rank
from tests.jobs.specs import setup_for

pytestmark = pytest.mark.cluster

CONFIG = RunConfig(workers=WorkerConfig(count=1, num_cpus=1))
WAIT_S = 120.0


def load(placed: Placed) -> None:
    loaded: LoadedWorker = ray.get([placed.load], timeout=WAIT_S)[0]
    placed.nodes = loaded.nodes


def pid_of(placed: Placed) -> int:
    known: dict[str, Any] = ray._private.state.actors(placed.actor._actor_id.hex())
    return known["Pid"]


def test_a_group_that_failed_is_used_again_unless_its_own_process_has_stopped(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    setup = replace(setup_for(tmp_path), load_model=load_fake_rank, parallel=ParallelConfig(ulysses=2))
    workers = GroupWorkers(setup, CONFIG, 0)
    first = workers.start(frozenset())
    load(first)
    workers.stop(first, may_return=True)
    assert workers.start(frozenset()) is first
    load(first)
    os.kill(pid_of(first), signal.SIGSTOP)
    workers.stop(first, may_return=True)
    second = workers.start(frozenset())
    assert second is not first
    load(second)
    workers.stop(second, may_return=False)
