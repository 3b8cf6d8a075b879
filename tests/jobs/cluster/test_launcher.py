"""The launcher of groups on a real Ray cluster: nodes, groups kept for later, and dead groups."""

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
from jobs.cluster.launcher import GroupLauncher, WorkerHandle, has_answered_ping
from jobs.plan.group_capacity import RankResources
from jobs.settings.run_config import RunConfig, WorkerConfig
from jobs.worker.setup import LoadedWorker
from pipelines.parallel_config import ParallelConfig
from tests.builders.specs import setup_for
from tests.fakes.model import FakeLoader
from tests.fakes.ranks import FakeRankModel
from tests.jobs.cluster.test_dispatch import is_alive

pytestmark = pytest.mark.cluster

CONFIG = RunConfig(workers=WorkerConfig(count=1, num_cpus=1))
WAIT_S = 120.0


def launcher_of_pairs(folder: Path) -> GroupLauncher:
    setup = replace(
        setup_for(folder), loader=FakeLoader(FakeRankModel), parallel=ParallelConfig(ulysses=2)
    )
    return GroupLauncher(setup, CONFIG, RankResources(1))


def load(handle: WorkerHandle) -> LoadedWorker:
    loaded: LoadedWorker = ray.get([handle.load], timeout=WAIT_S)[0]
    handle.nodes = loaded.nodes
    return loaded


def pid_of(actor: Any) -> int:
    known: dict[str, Any] = ray._private.state.actors(actor._actor_id.hex())
    return known["Pid"]


def test_a_group_that_failed_is_used_again_unless_its_actor_does_not_answer(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    launcher = launcher_of_pairs(tmp_path)
    first = launcher.start(frozenset())
    load(first)
    launcher.stop(first, may_return=True)
    assert launcher.start(frozenset()) is first
    load(first)
    os.kill(pid_of(first.actor), signal.SIGSTOP)
    launcher.stop(first, may_return=True)
    second = launcher.start(frozenset())
    assert second is not first
    load(second)
    launcher.stop(second, may_return=False)


def test_a_group_avoids_a_node_and_no_rank_outlives_its_actor(
    ray_driver: LocalRay, tmp_path: Path
) -> None:
    """A frozen rank dies with its actor too."""
    launcher = launcher_of_pairs(tmp_path)
    (node,) = cluster_nodes()
    waiting, other = (
        launcher.start(frozenset({avoided})) for avoided in (str(node["node_id"]), "f" * 56)
    )
    loaded = load(other)
    ready, _ = ray.wait([waiting.load], timeout=0)
    assert not ready
    leader, follower = (identity.pid for identity in (loaded.identity, *loaded.others))
    os.kill(follower, signal.SIGSTOP)
    os.kill(pid_of(other.actor), signal.SIGKILL)
    assert not [pid for pid in (leader, follower) if is_alive(pid)]
    for handle in (waiting, other):
        launcher.stop(handle, may_return=False)


@ray.remote(num_cpus=0)
class PingedActor:
    """The method of a group's actor by which the launcher knows that it runs."""

    def ping(self) -> bool:
        return True


def test_a_dead_process_does_not_answer_a_ping(ray_driver: LocalRay) -> None:
    actor: Any = PingedActor.remote()
    assert has_answered_ping(actor)
    pid = pid_of(actor)
    os.kill(pid, signal.SIGKILL)
    assert not is_alive(pid)
    assert not has_answered_ping(actor)
