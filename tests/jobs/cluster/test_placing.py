"""Where a group lies, and what becomes of one that is kept for later or gone, on a real Ray cluster."""

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
import ray._private.state

from infra.local.ray_cluster import LocalRay
from jobs.cluster.connection import cluster_nodes
from jobs.cluster.launcher import GroupWorkers, Placed, does_answer
from jobs.config import RunConfig, WorkerConfig
from jobs.worker.setup import LoadedWorker
from pipelines.parallel_config import ParallelConfig
from tests.builders.specs import setup_for
from tests.fakes.model import FakeLoader
from tests.fakes.ranks import FakeRankModel
from tests.jobs.cluster.test_dispatch import is_alive

pytestmark = pytest.mark.cluster

CONFIG = RunConfig(workers=WorkerConfig(count=1, num_cpus=1))
WAIT_S = 120.0


def pairs(folder: Path) -> GroupWorkers:
    setup = replace(
        setup_for(folder), loader=FakeLoader(FakeRankModel), parallel=ParallelConfig(ulysses=2)
    )
    return GroupWorkers(setup, CONFIG, 0)


def load(placed: Placed) -> LoadedWorker:
    loaded: LoadedWorker = ray.get([placed.load], timeout=WAIT_S)[0]
    placed.nodes = loaded.nodes
    return loaded


def pid_of(actor: Any) -> int:
    known: dict[str, Any] = ray._private.state.actors(actor._actor_id.hex())
    return known["Pid"]


def test_a_group_that_failed_is_used_again_unless_its_own_process_has_stopped(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    workers = pairs(tmp_path)
    first = workers.start(frozenset())
    load(first)
    workers.stop(first, may_return=True)
    assert workers.start(frozenset()) is first
    load(first)
    os.kill(pid_of(first.actor), signal.SIGSTOP)
    workers.stop(first, may_return=True)
    second = workers.start(frozenset())
    assert second is not first
    load(second)
    workers.stop(second, may_return=False)


def test_a_group_is_kept_off_a_node_and_no_rank_outlives_its_actor(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    """Not even one that is stopped."""
    workers = pairs(tmp_path)
    (node,) = cluster_nodes()
    kept_off, other = (
        workers.start(frozenset({avoided})) for avoided in (str(node["node_id"]), "f" * 56)
    )
    loaded = load(other)
    ready, _ = ray.wait([kept_off.load], timeout=0)
    assert not ready
    leader, follower = (identity.pid for identity in (loaded.identity, *loaded.others))
    os.kill(follower, signal.SIGSTOP)
    os.kill(pid_of(other.actor), signal.SIGKILL)
    assert not [pid for pid in (leader, follower) if is_alive(pid)]
    for placed in (kept_off, other):
        workers.stop(placed, may_return=False)


@ray.remote(num_cpus=0)
class Present:
    """Of a group's own process, what tells that it runs."""

    def is_there(self) -> bool:
        return True


def test_a_process_that_is_gone_does_not_answer(ray_driver: LocalRay) -> None:
    actor: Any = Present.remote()
    assert does_answer(actor)
    pid = pid_of(actor)
    os.kill(pid, signal.SIGKILL)
    assert not is_alive(pid)
    assert not does_answer(actor)
