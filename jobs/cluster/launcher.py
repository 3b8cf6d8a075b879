"""What one worker is on the cluster, a single actor or a group of them: how it is asked for, let go, and used again.

Decides where its processes may lie. To the dispatcher both are one actor that loads, heartbeats and renders.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import ray
import ray.exceptions
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from jobs.cluster.rank_actors import REMOTE_GROUP_ACTOR
from jobs.cluster.worker_actor import REMOTE_RENDER_ACTOR
from jobs.config import RunConfig
from jobs.worker.setup import WorkerSetup

ANSWER_S = 5.0  # for a group that is kept; meanwhile nothing else of the run goes on


@dataclass(eq=False)
class Placed:
    """One worker's actor.

    Args:
        load: the reference of its load.
        placement: of a group.
        nodes: on which it lies, once it has loaded.
    """

    actor: Any
    load: Any
    placement: Any = None
    nodes: frozenset[str] = frozenset()


class Placing(Protocol):
    """How the workers of a pool come and go."""

    def start(self, avoid: frozenset[str]) -> Placed:
        """Asks for a worker that lies on none of the nodes to `avoid`."""
        ...

    def stop(self, placed: Placed, *, may_return: bool) -> None:
        """Lets a worker go; what is left of one that `may_return` may become the next."""
        ...

    def close(self) -> None:
        """Lets go of all that is kept for later."""
        ...


def placing_for(setup: WorkerSetup, config: RunConfig, num_gpus: int) -> Placing:
    """By how many devices each worker renders on."""
    kind = SingleWorkers if setup.parallel.degree == 1 else GroupWorkers
    return kind(setup, config, num_gpus)


class SingleWorkers:
    """Each an actor on a device of its own. Nothing is ever kept of one."""

    def __init__(self, setup: WorkerSetup, config: RunConfig, num_gpus: int) -> None:
        self._setup = setup
        self._workers = config.workers
        self._num_gpus = num_gpus

    def start(self, avoid: frozenset[str]) -> Placed:
        actor = REMOTE_RENDER_ACTOR.options(
            num_cpus=self._workers.num_cpus,
            num_gpus=self._num_gpus,
            max_concurrency=self._workers.spool_clips + 1,
            label_selector=keeping_off(avoid),
        ).remote(self._setup)
        return Placed(actor, actor.load.remote())

    def stop(self, placed: Placed, *, may_return: bool) -> None:
        ray.kill(placed.actor)  # where the process does not answer, its raylet kills it after 5 s

    def close(self) -> None:
        """Nothing is kept."""


class GroupWorkers:
    """Each a placement with a bundle for each rank, on one machine unless several are asked for. A group that failed
    keeps its placement, and the ranks that are sound their weights.
    """

    def __init__(self, setup: WorkerSetup, config: RunConfig, num_gpus: int) -> None:
        self._setup = setup
        self._config = config
        self._num_gpus = num_gpus
        self._kept: list[Placed] = []

    def start(self, avoid: frozenset[str]) -> Placed:
        while self._kept:
            kept = self._kept.pop()
            if not kept.nodes & avoid and does_answer(kept.actor):
                kept.load = kept.actor.rebuild.remote()
                return kept
            release(kept)
        workers, parallel = self._config.workers, self._setup.parallel
        bundle = {"CPU": float(workers.num_cpus)} | (
            {"GPU": float(self._num_gpus)} if self._num_gpus else {}
        )
        selector = keeping_off(avoid)
        placement = placement_group(
            [bundle] * parallel.degree,
            strategy="PACK" if parallel.across_hosts else "STRICT_PACK",
            bundle_label_selector=[selector or {}] * parallel.degree,
        )
        actor = REMOTE_GROUP_ACTOR.options(
            num_cpus=0,
            max_concurrency=workers.spool_clips + 1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(placement, 0),
        ).remote(self._setup, self._config, self._num_gpus)
        return Placed(actor, actor.load.remote(), placement)

    def stop(self, placed: Placed, *, may_return: bool) -> None:
        if may_return and placed.nodes:
            self._kept.append(placed)
        else:
            release(placed)

    def close(self) -> None:
        while self._kept:
            release(self._kept.pop())


def release(placed: Placed) -> None:
    """Ends a group's processes. Its ranks belong to its actor, and die with it or with the placement."""
    ray.kill(placed.actor)
    remove_placement_group(placed.placement)


def does_answer(actor: Any) -> bool:
    """Its own process runs. One that has stopped would be waited for as long as one that loads, and one that is gone be
    taken for one that cannot load.
    """
    try:
        return bool(ray.get(actor.is_there.remote(), timeout=ANSWER_S))
    except ray.exceptions.RayError:  # its time-out too
        return False


def keeping_off(nodes: frozenset[str]) -> dict[str, str] | None:
    """A label selector."""
    return {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"} if nodes else None
