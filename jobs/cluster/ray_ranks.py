"""The Ray actors of ranks, behind the protocols by which a group and its leader call them.

Decides nothing: it passes each question on to the actor and translates Ray's errors.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ray
import ray.exceptions

from jobs.cluster.ray_errors import rank_error
from jobs.group.rank_state import RankState
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipOutcome, ClipSpec, WorkerHeartbeat
from pipelines.errors import RankSilentError
from pipelines.request import GenerationRequest

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import Rendezvous

T = TypeVar("T")


class RayAnswer(Generic[T]):
    """An `Answer` that Ray delivers by reference."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference
        self.future: Future[Any] = reference.future()

    def get(self, wait_s: float | None) -> T:
        """See `Answer.get`."""
        try:
            return ray.get(self._reference, timeout=wait_s)
        except ray.exceptions.GetTimeoutError as error:
            raise RankSilentError(f"no answer from a rank within {wait_s:.1f} s") from error
        except ray.exceptions.RayError as error:
            raise rank_error(error) from error


class RayRank:
    """A `RankProcess` that is an actor.

    Args:
        actor: the handle of a `LeaderActor` or a `FollowerActor`.
    """

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def load(self) -> RayAnswer[WorkerIdentity]:
        return RayAnswer(self._actor.load.remote())

    def leave(self, wait_s: float) -> RayAnswer[None]:
        return RayAnswer(self._actor.leave.remote(wait_s))

    def state(self) -> RayAnswer[RankState]:
        return RayAnswer(self._actor.state.remote())

    def heartbeat(self) -> RayAnswer[WorkerHeartbeat]:
        return RayAnswer(self._actor.heartbeat.remote())

    def kill(self) -> None:
        ray.kill(self._actor)  # after 5 s the raylet kills a process that does not answer


class RayFollower(RayRank):
    """A `FollowerProcess` that is an actor."""

    @property
    def address(self) -> Any:
        return self._actor

    def join(self, rendezvous: "Rendezvous") -> RayAnswer[None]:
        return RayAnswer(self._actor.join.remote(rendezvous))


class RayLeader(RayRank):
    """A `LeaderProcess` that is an actor."""

    def lead(self, rendezvous: "Rendezvous", followers: Sequence[Any]) -> RayAnswer[None]:
        return RayAnswer(self._actor.lead.remote(rendezvous, followers))

    def render(
        self, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> RayAnswer[ClipOutcome]:
        return RayAnswer(self._actor.render.remote(spec, attempt, uses_exact_attention))

    def recall(self, clip_id: str) -> None:
        self._actor.recall.remote(clip_id)

    def finish(self, wait_s: float) -> RayAnswer[None]:
        return RayAnswer(self._actor.finish.remote(wait_s))

    def spooled(self) -> RayAnswer[frozenset[str]]:
        return RayAnswer(self._actor.spooled.remote())


class RayFollowers:
    """The `Followers` of a leader: their actors, as the leader's process calls them."""

    def __init__(self) -> None:
        self.actors: Sequence[Any] = ()
        self._parts: list[Any] = []

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        """See `Followers.begin`."""
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
                cause = rank_error(error)
                cause.add_note(f"on rank {rank}: {error}")
                found.append(cause)
            except ray.exceptions.RayError as error:
                found.append(rank_error(error, f"rank {rank}"))
        return found
