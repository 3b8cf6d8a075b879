"""The Ray actors of a group: one for each rank, and one that holds them together. They delegate, and map Ray's errors.

Decides in which process each part of a group lives: a rank in one of the placement's bundles, and the group itself in
a process without a device, which owns the ranks' and outlives each of them. What they do is `rank`'s and `group`'s.
"""

import signal
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray
import ray.exceptions
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from jobs.cluster.ray_errors import first_line, last_line
from jobs.config import RunConfig
from jobs.group.rank import Follower, Leader
from jobs.group.rank_group import GroupDeadlines, RankGroup
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipOutcome, ClipSpec, LostRank, WorkerHeartbeat
from jobs.worker.setup import LoadedWorker, WorkerSetup
from pipelines.errors import RankLostError, RankPreemptedError, RankSilentError
from pipelines.request import GenerationRequest

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import Rendezvous, RendezvousPoint


class RayAnswer:
    """An `Answer` by its reference."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        self.future: Future[Any] = reference.future()

    def get(self, wait_s: float | None) -> Any:
        """See `Answer.get`."""
        try:
            return ray.get(self._reference, timeout=wait_s)
        except ray.exceptions.GetTimeoutError as error:
            raise RankSilentError(f"no answer from a rank within {wait_s:.1f} s") from error
        except ray.exceptions.RayError as error:
            raise cause_of(error) from error


class RayRank:
    """A `RankProcess`: an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def ask(self, method: str, *arguments: Any) -> RayAnswer:
        return RayAnswer(getattr(self._actor, method).remote(*arguments))

    def name_for_leader(self) -> Any:
        return self._actor

    def kill(self) -> None:
        ray.kill(self._actor)  # where the process does not answer, its raylet kills it after 5 s


class RayFollowers:
    """The other ranks, as the leader's process reaches them."""

    def __init__(self) -> None:
        self.actors: Sequence[Any] = ()
        self._parts: list[Any] = []

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        self._parts = [
            actor.follow.remote(generation, request, uses_exact_attention) for actor in self.actors
        ]

    def errors(self, wait_s: float) -> list[Exception]:
        """See `Followers.errors`."""
        ready, _ = ray.wait(self._parts, num_returns=len(self._parts), timeout=wait_s)
        found: list[Exception] = []
        for rank, part in enumerate(self._parts, start=1):
            if part not in ready:
                continue
            try:
                ray.get(part)
            except ray.exceptions.RayTaskError as error:
                found.append(noted(cause_of(error), f"on rank {rank}: {error}"))
            except ray.exceptions.RayError as error:
                found.append(cause_of(error, f"rank {rank}"))
        return found


class RankActor:
    """What the actor of any rank answers, whatever the rank computes meanwhile."""

    def __init__(self, rank: Follower | Leader) -> None:
        self._rank = rank
        # Ray runs this in the process's main thread; its own handler would end the process in the middle of a clip
        signal.signal(signal.SIGTERM, lambda _number, _frame: rank.drain())

    @ray.method(concurrency_group="forming")
    def load(self) -> WorkerIdentity:
        return self._rank.load()

    @ray.method(concurrency_group="forming")
    def leave(self, wait_s: float) -> None:
        self._rank.leave(wait_s)

    @ray.method(concurrency_group="control")
    def is_sound(self) -> bool:
        return self._rank.is_sound()

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

    @ray.method(concurrency_group="forming")
    def finish(self, wait_s: float) -> None:
        self._leader.finish(wait_s)

    @ray.method(concurrency_group="control")
    def spooled(self) -> frozenset[str]:
        return self._leader.spooled()

    @ray.method(concurrency_group="control")
    def broken_by(self) -> str | None:
        return self._leader.broken_by()


class GroupActor:
    """A `RankGroup` whose ranks are actors in the bundles of the placement that this one is in."""

    def __init__(self, setup: WorkerSetup, config: RunConfig, num_gpus: int) -> None:
        self._setup = setup
        self._config = config
        self._num_gpus = num_gpus
        placement = ray.util.get_current_placement_group()
        assert placement is not None, "a group is started in a placement of its own"
        self._placement = placement
        self._group = RankGroup(setup.parallel, self._start, meet, GroupDeadlines.of(config))
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._group.drain())

    @ray.method(concurrency_group="forming")
    def load(self) -> LoadedWorker:
        return self._group.load()

    @ray.method(concurrency_group="forming")
    def rebuild(self) -> LoadedWorker:
        return self._group.rebuild()

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> WorkerHeartbeat | LostRank:
        return self._group.heartbeat()

    @ray.method(concurrency_group="presence")
    def is_there(self) -> bool:
        """Answers whatever else it waits for."""
        return True

    def render(
        self, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> ClipOutcome | LostRank:
        return self._group.render(spec, attempt, uses_exact_attention)

    def _start(self, rank: int) -> RayRank:
        workers = self._config.workers
        options = {
            "num_cpus": workers.num_cpus,
            "num_gpus": self._num_gpus,
            "max_concurrency": workers.spool_clips + 1,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._placement, rank),
        }
        remote = REMOTE_FOLLOWER if rank else REMOTE_LEADER
        return RayRank(remote.options(**options).remote(self._setup))


def meet() -> "RendezvousPoint":
    from pipelines.context_parallel.process_group import RendezvousPoint

    return RendezvousPoint(ray.util.get_node_ip_address())


def cause_of(error: ray.exceptions.RayError, who: str = "a rank") -> Exception:
    """What a rank raised; or where it raised nothing, that it is gone."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause if isinstance(error.cause, Exception) else error
    if isinstance(
        error, ray.exceptions.UnserializableException
    ):  # of which the text alone arrived, with its traceback
        return error
    if (
        isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
    ):  # which another would fail in too
        return RuntimeError(f"{who} could not be started: {last_line(error)}")
    return lost(error, who)


def noted(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error


def lost(error: ray.exceptions.RayError, who: str) -> RankLostError:
    is_preempted = isinstance(error, ray.exceptions.RayActorError) and error.preempted
    return (RankPreemptedError if is_preempted else RankLostError)(
        f"{who} is gone: {first_line(error)}"
    )


_remote: Any = ray.remote  # its types do not know of concurrency groups
_rank = _remote(max_restarts=0, max_task_retries=0, concurrency_groups={"control": 2, "forming": 1})
REMOTE_FOLLOWER, REMOTE_LEADER = _rank(FollowerActor), _rank(LeaderActor)
_group = _remote(
    max_restarts=0,
    max_task_retries=0,
    concurrency_groups={"control": 1, "forming": 1, "presence": 1},
)
REMOTE_GROUP_ACTOR = _group(GroupActor)
