"""The Ray actors of a group: one for each rank, and one that runs the `RankGroup`.

Decides in which process each part of a group lives. Each rank has one of the placement group's
bundles. The `RankGroup` has a process without a device, which owns the ranks' actors and outlives
each of them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from jobs.cluster.ray_ranks import RayFollower, RayFollowers, RayLeader
from jobs.cluster.worker_actor import prepare_process
from jobs.group.generations import GroupDeadlines
from jobs.group.rank import Follower, Leader
from jobs.group.rank_group import RankGroup
from jobs.group.rank_state import RankState
from jobs.records.schema import WorkerIdentity
from jobs.settings.run_config import RunConfig
from jobs.types import ClipOutcome, ClipSpec, LostRank, WorkerHeartbeat
from jobs.worker.setup import LoadedWorker, WorkerSetup, without_garbage_collection
from pipelines.request import GenerationRequest

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import Rendezvous, RendezvousPoint


class RankActor:
    """The part that the actors of all ranks share. `control` answers while the rank computes."""

    def __init__(self, rank: Follower | Leader) -> None:
        self._rank = rank
        prepare_process(rank.drain)

    @ray.method(concurrency_group="forming")
    def load(self) -> WorkerIdentity:
        return self._rank.load()

    @ray.method(concurrency_group="forming")
    def leave(self, wait_s: float) -> None:
        self._rank.leave(wait_s)

    @ray.method(concurrency_group="control")
    def state(self) -> RankState:
        return self._rank.state()

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> WorkerHeartbeat:
        return self._rank.heartbeat()


class FollowerActor(RankActor):
    """A `Follower` in a process of its own."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._follower = Follower(setup, ray.get_runtime_context().get_node_id())
        super().__init__(self._follower)

    @ray.method(concurrency_group="forming")
    def join(self, rendezvous: "Rendezvous") -> None:
        self._follower.join(rendezvous)

    def follow(
        self, generation: int, request: GenerationRequest, uses_exact_attention: bool
    ) -> None:
        self._follower.follow(generation, request, uses_exact_attention)


class LeaderActor(RankActor):
    """A `Leader` in a process of its own."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._followers = RayFollowers()
        self._leader = Leader(setup, ray.get_runtime_context().get_node_id(), self._followers)
        super().__init__(self._leader)

    @ray.method(concurrency_group="forming")
    def lead(self, rendezvous: "Rendezvous", followers: Sequence[Any]) -> None:
        self._followers.actors = followers
        self._leader.join(rendezvous)

    def render(self, spec: ClipSpec, attempt: int, uses_exact_attention: bool) -> ClipOutcome:
        return self._leader.render(spec, attempt, uses_exact_attention)

    @ray.method(concurrency_group="control")
    def recall(self, clip_id: str) -> None:
        self._leader.recall(clip_id)

    @ray.method(concurrency_group="forming")
    def finish(self, wait_s: float) -> None:
        self._leader.finish(wait_s)

    @ray.method(concurrency_group="control")
    def spooled(self) -> frozenset[str]:
        return self._leader.spooled()


class GroupActor:
    """A `RankGroup` whose ranks are actors in the bundles of this actor's placement group."""

    def __init__(self, setup: WorkerSetup, config: RunConfig, num_gpus: float) -> None:
        placement = ray.util.get_current_placement_group()
        assert placement is not None, "a group is started in a placement group of its own"
        launcher = RayRankLauncher(setup, config, num_gpus, placement)
        self._group = RankGroup(setup.parallel, launcher, GroupDeadlines.of(config))
        prepare_process(self._group.drain)

    @ray.method(concurrency_group="forming")
    def load(self) -> LoadedWorker:
        return self._group.load()

    @ray.method(concurrency_group="forming")
    def rebuild(self) -> LoadedWorker:
        return self._group.rebuild()

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> WorkerHeartbeat | LostRank:
        return self._group.heartbeat()

    @ray.method(concurrency_group="control")
    def recall(self, clip_id: str) -> None:
        self._group.recall(clip_id)

    @ray.method(concurrency_group="ping")
    def ping(self) -> bool:
        """Return True, whatever else the actor waits for."""
        return True

    def render(
        self, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> ClipOutcome | LostRank:
        return self._group.render(spec, attempt, uses_exact_attention)


class RayRankLauncher:
    """The `RankLauncher` of a group: it starts each rank in its bundle.

    Args:
        setup: the setup of the worker.
        config: the settings of the run.
        num_gpus: GPUs that each rank reserves; 0 renders on the CPU.
        placement: the group's bundles, one for each rank.
    """

    def __init__(
        self, setup: WorkerSetup, config: RunConfig, num_gpus: float, placement: PlacementGroup
    ) -> None:
        self._setup = setup
        self._workers = config.workers
        self._num_gpus = num_gpus
        self._placement = placement

    def start_leader(self) -> RayLeader:
        return RayLeader(self._start(REMOTE_LEADER, 0))

    def start_follower(self, rank: int) -> RayFollower:
        return RayFollower(self._start(REMOTE_FOLLOWER, rank))

    def open_rendezvous(self) -> "RendezvousPoint":
        with without_garbage_collection():
            from pipelines.context_parallel.process_group import RendezvousPoint

        return RendezvousPoint(ray.util.get_node_ip_address())

    def _start(self, remote: Any, rank: int) -> Any:
        return remote.options(
            num_cpus=self._workers.num_cpus,
            num_gpus=self._num_gpus,
            max_concurrency=self._workers.spool_clips + 1,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._placement, rank),
        ).remote(self._setup)


_remote: Any = ray.remote  # its types do not know concurrency groups
_rank = _remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2, "forming": 1})
REMOTE_FOLLOWER, REMOTE_LEADER = _rank(FollowerActor), _rank(LeaderActor)
_group = _remote(
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"control": 1, "forming": 1, "ping": 1},
)
REMOTE_GROUP_ACTOR = _group(GroupActor)
