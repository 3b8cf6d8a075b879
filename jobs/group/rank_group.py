"""A group of ranks as one worker: it forms, renders, and forms again after a rank has failed.

Decides for each clip whether the group must form again first. To the schedule, a rebuilt group is a
new worker; this module keeps the clips of the earlier worker apart. `generations` forms the process
groups, `rank` does the work of one rank, `jobs.cluster.rank_actors` gives each rank its process,
and the schedule decides when a group is released. Knows nothing of Ray.
"""

import threading
import time

from jobs.group.generations import Generations, GroupDeadlines
from jobs.group.heartbeats import GroupHeartbeats
from jobs.group.rank_answers import collect
from jobs.group.rank_processes import RankLauncher
from jobs.group.rank_state import Joined, membership_of, must_be_released
from jobs.types import ClipFailed, ClipOutcome, ClipSpec, LostRank, WorkerHeartbeat
from jobs.worker.setup import LoadedWorker
from pipelines.errors import GroupBrokenError, GroupError, RankLostError, RankPreemptedError
from pipelines.parallel_config import ParallelConfig


class RankGroup:
    """The ranks of one group.

    Args:
        parallel: the degrees of context parallelism.
        launcher: starts the ranks' processes.
        deadlines: the longest wait for each step.
    """

    def __init__(
        self, parallel: ParallelConfig, launcher: RankLauncher, deadlines: GroupDeadlines
    ) -> None:
        self._deadlines = deadlines
        self._generations = Generations(parallel, launcher, deadlines)
        self._heartbeats = GroupHeartbeats(deadlines.leave_s)
        # Held while a generation forms and while a clip is handed to the leader.
        self._forming = threading.Lock()
        self._changes = threading.Condition()
        self._session = 0  # rises whenever this group becomes a new worker of the schedule
        self._is_forming = True

    def load(self) -> LoadedWorker:
        """Start all ranks, load their models, and form the first generation.

        Raises:
            GroupError: a rank died meanwhile or did not answer in time.
            Exception: a rank could not load its model.
        """
        with self._forming:
            try:
                return self._generations.form_first()
            finally:
                self._end_forming()

    def rebuild(self) -> LoadedWorker:
        """Form the next generation on the same devices, as the schedule's next worker.

        Usable ranks keep their weights; the others are replaced. Clips of the earlier worker that
        still wait here are not rendered.

        Raises:
            GroupError, Exception: as `load`. The group must then be released.
        """
        with self._changes:
            self._session += 1
            self._heartbeats.begin_session()
            self._changes.notify_all()
        with self._forming:
            return self._reform(is_new_session=True)

    def render(
        self, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> ClipOutcome | LostRank:
        """Have the leader render a clip.

        If an earlier clip has broken the process group and the schedule keeps the group, form the
        next generation first. Repeat this as often as another waiting clip breaks it again.
        """
        with self._changes:
            session = self._session
        try:
            outcome = self._render_on_leader(session, spec, attempt, uses_exact_attention)
            while has_failed_by(outcome, GroupBrokenError) and self._reform_unless_released(
                session
            ):
                outcome = self._render_on_leader(session, spec, attempt, uses_exact_attention)
        except GroupError as error:
            return self._heartbeats.lost(error)
        if isinstance(outcome, ClipFailed) and (
            has_failed_by(outcome, RankPreemptedError)
            or (has_failed_by(outcome, RankLostError) and self._heartbeats.is_draining)
        ):
            return LostRank(outcome.message, is_preempted=True)
        return outcome

    def recall(self, clip_id: str) -> None:
        """Have `render` hand a clip back, unless it has begun or the group forms."""
        with self._changes:
            if not self._is_forming:
                self._generations.ranks.leader.recall(clip_id)

    def heartbeat(self) -> WorkerHeartbeat | LostRank:
        """Return the merged heartbeat once every rank has sent one or missed its deadline."""
        with self._changes:
            ranks = None if self._is_forming else self._generations.ranks
        if ranks is None:
            return self._heartbeats.while_forming(self._generations.load_position())
        heartbeats, failures = collect(
            [rank.heartbeat() for rank in ranks.all], self._deadlines.heartbeat_s, GroupError
        )
        with self._changes:
            if self._is_forming or ranks is not self._generations.ranks:
                return self._heartbeats.while_forming()  # the missing ranks are being replaced
            return self._heartbeats.merge(heartbeats, failures, time.monotonic())

    def drain(self) -> None:
        """Report from now on that the group drains. Safe in a signal handler."""
        self._heartbeats.drain()

    def _render_on_leader(
        self, session: int, spec: ClipSpec, attempt: int, uses_exact_attention: bool
    ) -> ClipOutcome:
        """Hand a clip to the leader between two generations and wait for the outcome.

        A leader of a generation that forms may have no model yet.

        Raises:
            GroupBrokenError: the schedule has released the group and given its clips to others.
        """
        with self._forming:
            if session != self._session:
                raise GroupBrokenError(
                    "the schedule has released this group and given its clips to other workers"
                )
            answer = self._generations.ranks.leader.render(spec, attempt, uses_exact_attention)
        return answer.get(None)

    def _reform_unless_released(self, session: int) -> bool:
        """Form the next generation unless another clip already has.

        Returns:
            False if the schedule releases the group, as it does after it was broken by a failure
            of the classes memory and worker; the clip is then rendered by another worker.
        """
        with self._forming:
            state = self._generations.ranks.leader.state().get(self._deadlines.answer_s)
            leader = membership_of(state)
            is_released = session != self._session or must_be_released(leader)
            if not is_released and not isinstance(leader, Joined):
                try:
                    self._reform(is_new_session=False)
                except GroupError:
                    raise
                # The schedule then starts another worker, and ends the run if that one fails too.
                except Exception as error:
                    raise RankLostError(f"the group could not form again: {error}") from error
        if is_released:
            limit_s = self._deadlines.heartbeat_s
            with self._changes:
                self._changes.wait_for(lambda: self._session != session, limit_s)
        return not is_released

    def _reform(self, *, is_new_session: bool) -> LoadedWorker:
        """Form the next generation of the usable ranks and of new ones."""
        with self._changes:
            self._is_forming = True
            self._heartbeats.begin_forming()
        try:
            return self._generations.form_next(is_new_session=is_new_session)
        finally:
            self._end_forming()

    def _end_forming(self) -> None:
        with self._changes:
            self._is_forming = False


def has_failed_by(outcome: ClipOutcome, error: type[GroupError]) -> bool:
    """Return True if the clip failed by exactly this class of error."""
    return isinstance(outcome, ClipFailed) and outcome.group_error is error
