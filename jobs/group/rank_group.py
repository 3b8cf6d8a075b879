"""A group of ranks as one worker: formed, asked, and formed anew when a rank fails. Knows nothing of Ray.

Decides which ranks are kept and which are started anew, whose word is the group's, and how long anybody is waited for.
What a rank does is `rank`'s, which process it is in `rank_actors`', when a group is given up `schedule`'s.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.config import RunConfig
from jobs.errors import FailureClass
from jobs.group.rank_answers import Answer, RankProcess, cause_among, collect, get_all
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipFailed, ClipOutcome, ClipProgress, ClipSpec, LostRank, WorkerHeartbeat
from jobs.worker.setup import LoadedWorker
from pipelines.errors import (
    GroupBrokenError,
    GroupError,
    RankLostError,
    RankPreemptedError,
    RankSilentError,
)
from pipelines.parallel_config import ParallelConfig

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import RendezvousPoint

ENDS_GROUP: frozenset[FailureClass] = frozenset(
    {"memory", "worker"}
)  # after these the schedule lets it go


@dataclass(frozen=True)
class GroupDeadlines:
    """How long a group waits, and for what.

    Args:
        answer_s: for a rank to say whether it is sound; who computes answers too.
        leave_s: for a rank to come out of a broken group, and the leader of its uploads where its clips are to be given
            to others; for the leader to tell of a rank that is gone.
        join_s: for all ranks, loaded, to form one.
        load_s: for a rank to load its model.
        silence_s: for a rank's word, by when the schedule has long taken the group for frozen.
        collective_s: after which a collective raises by itself.
    """

    load_s: float
    silence_s: float
    collective_s: float
    answer_s: float = 5.0
    leave_s: float = 20.0
    join_s: float = 60.0

    @classmethod
    def of(cls, config: RunConfig) -> "GroupDeadlines":
        stall = config.stall
        return cls(config.workers.load_timeout_s, 2 * stall.heartbeat_timeout_s, stall.first_s)


class RankGroup:
    """The ranks of one group.

    Args:
        parallel: how they share a clip.
        start: starts the process of a rank.
        meet: opens the place where they meet, outside of all of them.
    """

    def __init__(
        self,
        parallel: ParallelConfig,
        start: Callable[[int], RankProcess],
        meet: "Callable[[], RendezvousPoint]",
        deadlines: GroupDeadlines,
    ) -> None:
        self._parallel = parallel
        self._start = start
        self._meet = meet
        self._deadlines = deadlines
        self._point: RendezvousPoint | None = None
        self._generation = 0
        self._ranks: list[RankProcess] = []
        self._loads: dict[int, Answer] = {}  # each rank's identity
        self._forming = (
            threading.Lock()
        )  # one at a time forms a generation, and no clip is begun meanwhile
        self._changes = threading.Condition()
        self._session = 0  # of the schedule's workers that this group has been
        self._is_forming = False
        self._is_told_to_end = False  # this process, for good
        self._has_draining_rank = False  # by the last heartbeats; it goes when its rank does
        self._uploading: tuple[
            ClipProgress, ...
        ] = ()  # by the last heartbeat; what goes on while a generation is formed
        self._failing_since: float | None = (
            None  # when the first heartbeat with a rank missing came, by a monotonic clock
        )

    def load(self) -> LoadedWorker:
        """Starts all ranks, and has them load the model and form their first generation.

        Raises:
            GroupError: a rank died meanwhile, or does not come forward.
            Exception: why a rank could not load.
        """
        with self._forming:
            self._point = self._meet()
            return self._form(frozenset(range(self._parallel.degree)))

    def rebuild(self) -> LoadedWorker:
        """Forms the next generation in the same place: of the ranks that are sound, with their weights, and of new
        ones. Whoever still waits for a clip of the earlier one hears nothing more of it.

        Raises:
            GroupError, Exception: as `load`; nothing of the group is of use then.
        """
        with self._changes:
            self._session += 1
            self._has_draining_rank, self._uploading = False, ()
            self._changes.notify_all()
        with self._forming:
            return self._form_anew(is_session_over=True)

    def render(
        self, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> ClipOutcome | LostRank:
        """Has the leader render a clip. Where an earlier clip has broken the group and the schedule keeps it all the
        same, it is formed anew first, as often as another clip that waits too breaks it again.
        """
        with self._changes:
            session = self._session
        try:
            outcome = self._ask_leader(session, spec, attempt, uses_exact_attention)
            while is_failure(outcome, GroupBrokenError) and self._mend(
                session
            ):  # another may break it again
                outcome = self._ask_leader(session, spec, attempt, uses_exact_attention)
        except GroupError as error:
            return self._told(error)
        is_lost_in_draining = is_failure(outcome, RankLostError) and self._is_draining
        if isinstance(outcome, ClipFailed) and (
            is_failure(outcome, RankPreemptedError) or is_lost_in_draining
        ):
            return LostRank(outcome.message, is_preempted=True)
        return outcome

    def heartbeat(self) -> WorkerHeartbeat | LostRank:
        """The leader's clips and the largest rank's memory, once all ranks have said something: a group with one that
        is silent is silent. Of a rank that is gone while all denoise, the leader's answer for the clip tells, unless
        none comes.
        """
        with self._changes:
            ranks, is_forming = self._ranks, self._is_forming
        if is_forming:
            return WorkerHeartbeat(self._uploading, 0, self._is_draining)
        heartbeats, failures = collect(
            [rank.ask("heartbeat") for rank in ranks], self._deadlines.silence_s, GroupError
        )
        leader: WorkerHeartbeat | None = heartbeats.get(0)
        with self._changes:
            if (
                self._is_forming or ranks is not self._ranks
            ):  # those that are missing are being replaced
                return WorkerHeartbeat(self._uploading, 0, self._is_draining)
            self._has_draining_rank = self._has_draining_rank or any(
                heartbeat.is_draining for heartbeat in heartbeats.values()
            )
            self._uploading = (
                tuple(clip for clip in leader.clips if clip.stage == "upload") if leader else ()
            )
            now = time.monotonic()
            self._failing_since = (self._failing_since or now) if failures else None
            is_leader_late = now - (self._failing_since or now) > self._deadlines.leave_s
        is_denoising = leader is not None and any(clip.stage == "denoise" for clip in leader.clips)
        is_silent = any(isinstance(error, RankSilentError) for error in failures.values())
        if failures and (is_silent or is_leader_late or not is_denoising):
            return self._told(cause_among(failures))
        assert leader is not None
        return WorkerHeartbeat(
            leader.clips,
            max(heartbeat.memory_bytes for heartbeat in heartbeats.values()),
            self._is_draining,
        )

    def drain(self) -> None:
        """The group was told to end: `heartbeat` says so from now on. Safe in a signal's handler."""
        self._is_told_to_end = True

    @property
    def _is_draining(self) -> bool:
        return self._is_told_to_end or self._has_draining_rank

    def _told(self, error: GroupError) -> LostRank:
        return LostRank(
            str(error), is_preempted=isinstance(error, RankPreemptedError) or self._is_draining
        )

    def _ask_leader(
        self, session: int, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> ClipOutcome:
        """Not while a generation is formed, whose leader may have no model yet; nor once the session is over, when the
        clip is no longer this group's.
        """
        with self._forming:
            if session != self._session:
                raise GroupBrokenError(
                    "the schedule has let the group go, and given its clips to others"
                )
            answer = self._ranks[0].ask("render", spec, attempt, uses_exact_attention)
        return answer.get(None)

    def _mend(self, session: int) -> bool:
        """Forms the next generation, unless another clip already did; False where the schedule lets the group go, as it
        does for the failure that broke it, and the clip is no longer this group's to render.
        """
        with self._forming:
            broken_by = self._ranks[0].ask("broken_by").get(self._deadlines.answer_s)
            is_kept = session == self._session and broken_by not in ENDS_GROUP
            if is_kept and broken_by is not None:
                try:
                    self._form_anew(is_session_over=False)
                except GroupError:
                    raise
                except Exception as error:  # the schedule asks for another, and hears what is wrong if that fails too
                    raise RankLostError(f"the group could not be formed anew: {error}") from error
        if not is_kept:
            with self._changes:
                self._changes.wait_for(lambda: self._session != session, self._deadlines.silence_s)
        return is_kept

    def _form_anew(self, *, is_session_over: bool) -> LoadedWorker:
        """Of the ranks that are fit, and of new ones."""
        with self._changes:
            self._is_forming, self._failing_since = True, None
        try:
            return self._form(self._unfit(is_session_over=is_session_over))
        finally:
            with self._changes:
                self._is_forming = False

    def _unfit(self, *, is_session_over: bool) -> frozenset[int]:
        """Kills the ranks that do not answer, that are not sound, or that do not come out of the broken group, whatever
        they say; and a leader that still has clips which are no longer this group's.
        """
        limits = self._deadlines
        sound, _ = collect(
            [rank.ask("is_sound") for rank in self._ranks], limits.answer_s, Exception
        )
        unfit = {rank for rank in range(len(self._ranks)) if not sound.get(rank)}
        for rank in unfit:
            self._ranks[rank].kill()  # which frees those that wait for it
        kept = [rank for rank in range(len(self._ranks)) if rank not in unfit]
        asked = [(0, "finish")] if is_session_over and 0 in kept else []
        asked += [(rank, "leave") for rank in kept]
        answers = [self._ranks[rank].ask(method, limits.leave_s / 2) for rank, method in asked]
        stuck = {asked[place][0] for place in collect(answers, limits.leave_s, Exception)[1]}
        for rank in stuck:
            self._ranks[rank].kill()
        return frozenset(unfit | stuck)

    def _form(self, missing: frozenset[int]) -> LoadedWorker:
        """Starts the ranks that are missing, and has all join the next generation."""
        limits, point = self._deadlines, self._point
        assert point is not None, "load comes first"
        kept = dict(enumerate(self._ranks))
        ranks = [
            self._start(rank) if rank in missing else kept[rank]
            for rank in range(self._parallel.degree)
        ]
        with self._changes:
            self._ranks = (
                ranks  # at once: what is started here is killed here, whatever comes of it
            )
        self._loads |= {rank: ranks[rank].ask("load") for rank in missing}
        get_all([self._loads[rank] for rank in sorted(missing)], limits.load_s)
        self._generation += 1
        meetings = [
            point.rendezvous(self._generation, rank, self._parallel, limits.collective_s)
            for rank in range(len(ranks))
        ]
        names = [rank.name_for_leader() for rank in ranks[1:]]
        joining = [
            rank.ask("join", rendezvous)
            for rank, rendezvous in zip(ranks[1:], meetings[1:], strict=True)
        ]
        get_all([ranks[0].ask("lead", meetings[0], names), *joining], limits.join_s)
        spooled = ranks[0].ask("spooled").get(limits.answer_s)
        identities: list[WorkerIdentity] = get_all(
            [self._loads[rank] for rank in range(len(ranks))], limits.answer_s
        )
        leader, *others = identities
        return LoadedWorker(leader, spooled, tuple(others), self._parallel)


def is_failure(outcome: ClipOutcome, kind: type[GroupError]) -> bool:
    return isinstance(outcome, ClipFailed) and outcome.group_error is kind
