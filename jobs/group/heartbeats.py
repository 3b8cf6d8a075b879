"""The heartbeat of a group, merged from those of its ranks.

Decides when a group without all its heartbeats is lost, and when a group drains. Has no clock and
no lock: `RankGroup` passes the time in and calls under its own lock. Knows nothing of Ray.
"""

from collections.abc import Mapping
from dataclasses import replace

from jobs.group.rank_answers import cause_among
from jobs.types import ClipProgress, LostRank, WorkerHeartbeat
from pipelines.errors import GroupError, RankPreemptedError, RankSilentError
from pipelines.load_progress import NOT_LOADING, LoadPosition


class GroupHeartbeats:
    """Merges the heartbeats of a group's ranks into one.

    Args:
        leader_s: seconds that the leader has to fail its clip after another rank is gone.
    """

    def __init__(self, leader_s: float) -> None:
        self._leader_s = leader_s
        self._is_process_draining = False  # for good
        self._has_draining_rank = False  # ends when that rank is replaced
        self._uploading: tuple[ClipProgress, ...] = ()
        self._failing_since_s: float | None = None

    @property
    def is_draining(self) -> bool:
        return self._is_process_draining or self._has_draining_rank

    def drain(self) -> None:
        """Report from now on that the group drains. Takes no lock: safe in a signal handler."""
        self._is_process_draining = True

    def begin_session(self) -> None:
        """Forget the draining ranks and the uploads of the worker that this group was before."""
        self._has_draining_rank, self._uploading = False, ()

    def begin_forming(self) -> None:
        """Forget since when a rank has been missing."""
        self._failing_since_s = None

    def while_forming(self, load: LoadPosition = NOT_LOADING) -> WorkerHeartbeat:
        """Return the heartbeat of a group that forms a generation: uploads alone go on.

        Args:
            load: the position of a first generation that loads.
        """
        return WorkerHeartbeat(self._uploading, 0, self.is_draining, load)

    def merge(
        self,
        heartbeats: Mapping[int, WorkerHeartbeat],
        failures: Mapping[int, GroupError],
        now_s: float,
    ) -> WorkerHeartbeat | LostRank:
        """Return the leader's clips and the largest rank's memory, or the loss of a rank.

        While all ranks denoise, the leader fails its clip with the reason for which a rank is gone,
        so that loss is reported here only if the leader has not done so in time.

        Args:
            heartbeats: the heartbeats that came, by rank.
            failures: the errors of the other ranks.
            now_s: a monotonic clock.
        """
        leader = heartbeats.get(0)
        self._has_draining_rank = self._has_draining_rank or any(
            heartbeat.is_draining for heartbeat in heartbeats.values()
        )
        clips = leader.clips if leader else ()
        self._uploading = tuple(clip for clip in clips if clip.stage == "upload")
        self._failing_since_s = (self._failing_since_s or now_s) if failures else None
        is_leader_late = now_s - (self._failing_since_s or now_s) > self._leader_s
        is_denoising = any(clip.stage == "denoise" for clip in clips)
        is_silent = any(isinstance(error, RankSilentError) for error in failures.values())
        if leader is None or (failures and (is_silent or is_leader_late or not is_denoising)):
            return self.lost(cause_among(failures))
        memory_bytes = max(heartbeat.memory_bytes for heartbeat in heartbeats.values())
        return replace(
            leader, memory_bytes=memory_bytes, is_draining=self.is_draining, load=NOT_LOADING
        )

    def lost(self, error: GroupError) -> LostRank:
        """Return the loss of a rank; a rank that is lost while the group drains is preempted."""
        is_preempted = isinstance(error, RankPreemptedError) or self.is_draining
        return LostRank(str(error), is_preempted=is_preempted)
