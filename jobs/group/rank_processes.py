"""The protocols of a group's processes: one method for each question, which returns an answer.

Decides nothing. A question does not wait; its answer does. `jobs.cluster.ray_ranks` implements
the protocols with Ray actors, `tests.fakes.rank_processes` by hand.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from jobs.group.rank_state import RankState
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipOutcome, ClipSpec, WorkerHeartbeat

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import Rendezvous, RendezvousPoint

T_co = TypeVar("T_co", covariant=True)


class Answer(Protocol[T_co]):
    """The answer to a question, which may not have come yet."""

    @property
    def future(self) -> Future[Any]:
        """A future that is done once the answer is there, or once none can come."""
        ...

    def get(self, wait_s: float | None) -> T_co:
        """Wait for the answer and return it.

        Args:
            wait_s: seconds; None waits for as long as the rank's process lives.

        Raises:
            RankSilentError: no answer came in time.
            RankLostError: the process is gone.
            RankPreemptedError: the process is gone since the cluster took its machine away.
            Exception: the rank raised it.
        """
        ...


class RankProcess(Protocol):
    """A process with one rank in it."""

    def load(self) -> Answer[WorkerIdentity]:
        """Load the rank's part of the model."""
        ...

    def leave(self, wait_s: float) -> Answer[None]:
        """Leave the process group; the rank's thread has `wait_s` seconds to come back."""
        ...

    def state(self) -> Answer[RankState]:
        """Return the rank's state, also while the rank computes."""
        ...

    def heartbeat(self) -> Answer[WorkerHeartbeat]:
        """Return the rank's heartbeat, also while the rank computes."""
        ...

    def kill(self) -> None:
        """End the process, whatever state it is in."""
        ...


class FollowerProcess(RankProcess, Protocol):
    """The process of a rank other than 0."""

    @property
    def address(self) -> Any:
        """The value by which the leader's process calls this rank; Ray's actor handle."""
        ...

    def join(self, rendezvous: "Rendezvous") -> Answer[None]:
        """Join the next generation of the process group."""
        ...


class LeaderProcess(RankProcess, Protocol):
    """The process of rank 0, which renders clips with the other ranks."""

    def lead(self, rendezvous: "Rendezvous", followers: Sequence[Any]) -> Answer[None]:
        """Join the next generation of the process group.

        Args:
            followers: the `address` of each other rank, in the order of the ranks.
        """
        ...

    def render(
        self, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> Answer[ClipOutcome]:
        """Render one clip with all ranks and commit it."""
        ...

    def recall(self, clip_id: str) -> None:
        """Have `render` hand a clip back, unless the device has begun with it; do not wait."""
        ...

    def finish(self, wait_s: float) -> Answer[None]:
        """Wait up to `wait_s` seconds until the leader renders and uploads nothing."""
        ...

    def spooled(self) -> Answer[frozenset[str]]:
        """Return the ids of the encoded clips that wait on the leader's machine."""
        ...


class RankLauncher(Protocol):
    """Starts the processes of one group."""

    def start_leader(self) -> LeaderProcess: ...

    def start_follower(self, rank: int) -> FollowerProcess: ...

    def open_rendezvous(self) -> "RendezvousPoint":
        """Open the rendezvous in this process, which outlives all ranks."""
        ...
