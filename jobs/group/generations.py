"""The generations of a group: which ranks are kept, which are replaced, and how all join again.

Decides when a rank is replaced, and how long each step may take. Not safe for threads: `RankGroup`
calls it under its lock, but for `load_position`. Knows nothing of Ray.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.group.rank_answers import collect, get_all
from jobs.group.rank_processes import (
    Answer,
    FollowerProcess,
    LeaderProcess,
    RankLauncher,
    RankProcess,
)
from jobs.group.rank_state import Detached, Joined
from jobs.records.schema import WorkerIdentity
from jobs.settings.run_config import RunConfig
from jobs.worker.setup import LoadedWorker
from pipelines.errors import GroupError
from pipelines.load_progress import NOT_LOADING, LoadPosition
from pipelines.parallel_config import ParallelConfig

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import RendezvousPoint


@dataclass(frozen=True)
class GroupDeadlines:
    """The seconds that a group waits at most for each step.

    Args:
        load_s: a rank loads its model.
        heartbeat_s: a rank sends a heartbeat. Longer than `stall.heartbeat_timeout_s`, so that the
            schedule reacts first.
        collective_s: a collective ends; after that torch raises.
        answer_s: a rank reports its state, which it does while it computes too.
        leave_s: a rank leaves a broken process group. The leader also drains its uploads if its
            clips go to other workers, and fails its clip if another rank is gone.
        join_s: all ranks, loaded, form a process group.
    """

    load_s: float
    heartbeat_s: float
    collective_s: float
    answer_s: float = 5.0
    leave_s: float = 20.0
    join_s: float = 60.0

    @classmethod
    def of(cls, config: RunConfig) -> "GroupDeadlines":
        stall = config.stall
        return cls(config.workers.load_timeout_s, 2 * stall.heartbeat_timeout_s, stall.first_s)


@dataclass(frozen=True, eq=False)
class Ranks:
    """The processes of one generation."""

    leader: LeaderProcess
    followers: tuple[FollowerProcess, ...]

    @property
    def all(self) -> tuple[RankProcess, ...]:
        """The processes in the order of their ranks."""
        return (self.leader, *self.followers)


class Generations:
    """Forms the generations of a group, one after another, on the same devices.

    Args:
        parallel: the degrees of context parallelism.
        launcher: starts the ranks' processes.
        deadlines: the longest wait for each step.
    """

    def __init__(
        self, parallel: ParallelConfig, launcher: RankLauncher, deadlines: GroupDeadlines
    ) -> None:
        self._parallel = parallel
        self._launcher = launcher
        self._deadlines = deadlines
        self._number = 0
        self._rendezvous: RendezvousPoint | None = None
        self._started: Ranks | None = None
        self._identities: dict[int, Answer[WorkerIdentity]] = {}

    @property
    def ranks(self) -> Ranks:
        """The processes of the newest generation."""
        if self._started is None:
            raise RuntimeError("the group has no ranks; call load first")
        return self._started

    def load_position(self) -> LoadPosition:
        """Return the position of the leader while the first generation loads, from any thread.

        The other ranks import and read as much, but for the text encoder.
        """
        ranks = self._started
        if ranks is None or self._number:
            return NOT_LOADING
        answer = ranks.leader.heartbeat()
        heartbeats, _ = collect([answer], self._deadlines.answer_s, GroupError)
        return heartbeats[0].load if heartbeats else NOT_LOADING

    def form_first(self) -> LoadedWorker:
        """Open the rendezvous, start all ranks, load their models and have them join.

        Raises:
            GroupError: a rank died meanwhile or did not answer in time.
            Exception: a rank could not load its model.
        """
        self._rendezvous = self._launcher.open_rendezvous()
        return self._form(frozenset(range(self._parallel.degree)))

    def form_next(self, *, is_new_session: bool) -> LoadedWorker:
        """Replace the ranks that are not usable and have all ranks join.

        Args:
            is_new_session: the leader's clips are no longer this group's.

        Raises:
            GroupError, Exception: as `form_first`.
        """
        return self._form(self._kill_unusable(is_new_session=is_new_session))

    def _kill_unusable(self, *, is_new_session: bool) -> frozenset[int]:
        """Kill the ranks that cannot be in the next generation, and return their numbers.

        These are the ranks that do not answer, are not usable, or do not leave the process group
        in time, whatever they raise; in a new session also a leader that still has clips.
        """
        limits, ranks = self._deadlines, self.ranks
        states, _ = collect([rank.state() for rank in ranks.all], limits.answer_s, Exception)
        usable = {rank for rank, state in states.items() if isinstance(state, Joined | Detached)}
        for rank, process in enumerate(ranks.all):
            if rank not in usable:
                process.kill()  # frees the ranks that wait for it
        asked: list[tuple[int, Answer[None]]] = []
        if is_new_session and 0 in usable:
            asked.append((0, ranks.leader.finish(limits.leave_s / 2)))
        asked += [(rank, ranks.all[rank].leave(limits.leave_s / 2)) for rank in sorted(usable)]
        _, failures = collect([answer for _, answer in asked], limits.leave_s, Exception)
        stuck = {asked[index][0] for index in failures}
        for rank in stuck:
            ranks.all[rank].kill()
        return frozenset(range(self._parallel.degree)) - (usable - stuck)

    def _form(self, missing: frozenset[int]) -> LoadedWorker:
        """Start the missing ranks and have all ranks join the next generation."""
        limits, rendezvous_point = self._deadlines, self._rendezvous
        assert rendezvous_point is not None, "load comes first"
        ranks = self._started = self._start(missing)  # now, so that a later `reform` can kill them
        self._identities |= {rank: ranks.all[rank].load() for rank in missing}
        get_all([self._identities[rank] for rank in sorted(missing)], limits.load_s)
        self._number += 1
        leading, *joining = (
            rendezvous_point.rendezvous(self._number, rank, self._parallel, limits.collective_s)
            for rank in range(self._parallel.degree)
        )
        joined = [
            follower.join(rendezvous)
            for follower, rendezvous in zip(ranks.followers, joining, strict=True)
        ]
        addresses = [follower.address for follower in ranks.followers]
        get_all([ranks.leader.lead(leading, addresses), *joined], limits.join_s)
        spooled = ranks.leader.spooled().get(limits.answer_s)
        identities = [self._identities[rank] for rank in range(self._parallel.degree)]
        leader, *others = get_all(identities, limits.answer_s)
        return LoadedWorker(leader, spooled, tuple(others), self._parallel)

    def _start(self, missing: frozenset[int]) -> Ranks:
        old, launcher = self._started, self._launcher
        return Ranks(
            launcher.start_leader() if old is None or 0 in missing else old.leader,
            tuple(
                launcher.start_follower(rank)
                if old is None or rank in missing
                else old.followers[rank - 1]
                for rank in range(1, self._parallel.degree)
            ),
        )
