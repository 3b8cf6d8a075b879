"""Launchers of workers: how a worker, one actor or a group, is started, stopped and used again.

Decides on which nodes a worker's processes may run. To the dispatcher, every worker is one actor
that loads, sends heartbeats and renders.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import ray
import ray.exceptions
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from jobs.cluster.rank_actors import REMOTE_GROUP_ACTOR
from jobs.cluster.worker_actor import REMOTE_RENDER_ACTOR
from jobs.plan.group_capacity import RankResources
from jobs.settings.run_config import RunConfig
from jobs.worker.setup import WorkerSetup
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig

PING_S = 5.0  # the dispatch loop stands still meanwhile


@dataclass(eq=False)
class WorkerHandle:
    """The actor of one worker.

    Args:
        actor: Ray's handle.
        load: the reference of the call that loads the model.
        placement: the placement group with its devices.
        placed: the reference of Ray's word that it has them.
        nodes: the nodes on which it runs; empty until it has loaded.
    """

    actor: Any
    load: Any
    placement: Any
    placed: Any
    nodes: frozenset[str] = frozenset()


class Launcher(Protocol):
    """Starts and stops the workers of one pool."""

    def start(self, cordoned: frozenset[str]) -> WorkerHandle:
        """Ask the cluster for a worker on none of the `cordoned` nodes."""
        ...

    def stop(self, handle: WorkerHandle, *, may_return: bool) -> None:
        """End a worker, or with `may_return` keep its usable parts for the next one."""
        ...

    def close(self) -> None:
        """End the workers that are kept."""
        ...


def launcher_for(setup: WorkerSetup, config: RunConfig, reserved: RankResources) -> Launcher:
    """Return the launcher for workers of one device, or of several.

    Args:
        setup: the setup of each worker.
        config: the settings of the run.
        reserved: resources that each actor, or each rank of a group, reserves.
    """
    kind = ActorLauncher if setup.parallel.degree == 1 else GroupLauncher
    return kind(setup, config, reserved)


class ActorLauncher:
    """Launches single workers, each an actor on a device of its own. It keeps none."""

    def __init__(self, setup: WorkerSetup, config: RunConfig, reserved: RankResources) -> None:
        self._setup = setup
        self._workers = config.workers
        self._reserved = reserved

    def start(self, cordoned: frozenset[str]) -> WorkerHandle:
        placement = place(self._reserved, cordoned)
        actor = REMOTE_RENDER_ACTOR.options(
            num_cpus=self._workers.num_cpus,
            num_gpus=self._reserved.num_gpus,
            max_concurrency=self._workers.spool_clips + 1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(placement, 0),
        ).remote(self._setup)
        return WorkerHandle(actor, actor.load.remote(), placement, placement.ready())

    def stop(self, handle: WorkerHandle, *, may_return: bool) -> None:
        release(handle)

    def close(self) -> None:
        pass


class GroupLauncher:
    """Launches groups of ranks, each in a placement group with one bundle for each rank.

    The bundles lie on one machine unless `across_hosts` is set. A group that failed may be kept
    with its placement group, so that its usable ranks keep their weights.
    """

    def __init__(self, setup: WorkerSetup, config: RunConfig, reserved: RankResources) -> None:
        self._setup = setup
        self._config = config
        self._reserved = reserved
        self._kept: list[WorkerHandle] = []

    def start(self, cordoned: frozenset[str]) -> WorkerHandle:
        while self._kept:
            kept = self._kept.pop()
            if not kept.nodes & cordoned and has_answered_ping(kept.actor):
                kept.load = kept.actor.rebuild.remote()
                return kept
            release(kept)
        workers, parallel = self._config.workers, self._setup.parallel
        placement = place(self._reserved, cordoned, parallel)
        actor = REMOTE_GROUP_ACTOR.options(
            num_cpus=0,
            max_concurrency=workers.spool_clips + 1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(placement, 0),
        ).remote(self._setup, self._config, self._reserved.num_gpus)
        return WorkerHandle(actor, actor.load.remote(), placement, placement.ready())

    def stop(self, handle: WorkerHandle, *, may_return: bool) -> None:
        if may_return and handle.nodes:
            self._kept.append(handle)
        else:
            release(handle)

    def close(self) -> None:
        while self._kept:
            release(self._kept.pop())


def place(
    reserved: RankResources, cordoned: frozenset[str], parallel: ParallelConfig = ONE_DEVICE
) -> PlacementGroup:
    """Ask the cluster for the devices of a worker; it may have to wait for them.

    A placement group tells, unlike an actor, whether a worker waits or starts.

    Args:
        reserved: resources of each rank, and the labels of its node.
    """
    return placement_group(
        [reserved.bundle] * parallel.degree,
        strategy="PACK" if parallel.across_hosts else "STRICT_PACK",
        bundle_label_selector=[dict(reserved.labels) | selector_without(cordoned)]
        * parallel.degree,
    )


def release(handle: WorkerHandle) -> None:
    """End a worker's processes: the ranks of a group belong to its actor and placement group."""
    ray.kill(handle.actor)  # after 5 s the raylet kills a process that does not answer
    remove_placement_group(handle.placement)


def has_answered_ping(actor: Any) -> bool:
    """Ping a group's actor and return True if it answers.

    Without the ping, a stalled actor would be mistaken for one that still loads, and a dead one for
    one that cannot load.
    """
    try:
        return bool(ray.get(actor.ping.remote(), timeout=PING_S))
    except ray.exceptions.RayError:  # its time-out too
        return False


def selector_without(nodes: frozenset[str]) -> dict[str, str]:
    """Return a label selector that matches all nodes but these."""
    return {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"} if nodes else {}
