"""The workers of a run as its schedule knows them, and which of them takes an attempt.

Decides about places alone: who is open, who is kept free, where a clip that waits on a disk has to go. What follows
from failures is `schedule`'s. Loads without torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from jobs.config import WorkerConfig
from jobs.schedule.deadlines import COMPUTING, Kind
from jobs.schedule.events import Attempt, WorkerId
from jobs.types import ClipProgress


@dataclass(eq=False)
class PooledWorker:
    """What is known of one worker, and what it has been given.

    Args:
        asked_at: when it was asked for; `heard_at`: when it last said something.
        others: further machines that it lies on, besides `node`, where its clips are encoded.
        retires: why it gets no more clips; None while it does.
        is_spent: nothing of it is to be used again.
        paused_until: when the store may take clips again.
    """

    asked_at: float
    heard_at: float
    label: str = "a worker that was loading"
    node: str | None = None  # None while it loads its model
    others: frozenset[str] = frozenset()
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])  # by clip_id
    progress: dict[str, ClipProgress] = field(default_factory=dict[str, ClipProgress])
    num_failures_in_a_row: int = 0
    num_done: int = 0
    kinds_done: set[Kind] = field(default_factory=set[Kind])  # of clips that it has rendered
    first_memory_bytes: int | None = None
    retires: str | None = None
    is_draining: bool = False
    is_spent: bool = False
    paused_until: float = 0.0
    back_off_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        return self.node is not None

    @property
    def nodes(self) -> frozenset[str]:
        """All machines that it needs."""
        return frozenset() if self.node is None else self.others | {self.node}

    @property
    def may_return(self) -> bool:
        """What is left of it, when it is lost, may become a worker again."""
        return not (self.is_spent or self.is_draining)

    def is_open(self, now: float) -> bool:
        """It takes clips."""
        return self.is_ready and self.retires is None and self.paused_until <= now

    @property
    def blamed(self) -> list[str]:
        """Clips that would be why, if the worker were gone. What it last said may be some seconds old, so only those
        are left out that it had done its own part of.
        """
        is_done = {
            progress.clip_id for progress in self.progress.values() if progress.stage == "upload"
        }
        return [clip_id for clip_id in self.attempts if clip_id not in is_done]

    def attributed(self) -> tuple[set[str], set[str]]:
        """Which clips are charged with its end, and which only saw it.

        Charged is what was being computed by its last word; where that is not known, everything. What it said last may
        be old, and the clip that was waiting then the one that killed it; so a clip is charged the second time that it
        is there.
        """
        computing = {
            clip_id
            for clip_id in self.blamed
            if clip_id in self.progress and self.progress[clip_id].stage in COMPUTING
        }
        again = {clip_id for clip_id in self.blamed if self.attempts[clip_id].num_bystander_losses}
        charged = (computing or set(self.blamed)) | again
        return charged, set(self.blamed) - charged

    @property
    def is_idle(self) -> bool:
        """Nothing that it has could be blamed on another clip, nor another on it."""
        return not self.blamed

    @property
    def has_suspect(self) -> bool:
        return any(self.attempts[clip_id].is_suspect for clip_id in self.blamed)

    def consider_recycling(self, limits: WorkerConfig, memory_bytes: int) -> None:
        """It has had its share of clips, or of memory."""
        if self.first_memory_bytes is None and self.num_done:
            self.first_memory_bytes = memory_bytes or None
        grown_bytes = memory_bytes - (self.first_memory_bytes or memory_bytes)
        if limits.recycle_after_clips is not None and self.num_done >= limits.recycle_after_clips:
            self.retires = self.retires or f"recycled after {self.num_done} clips"
        if limits.recycle_growth_bytes is not None and grown_bytes > limits.recycle_growth_bytes:
            self.retires = (
                self.retires or f"recycled: its memory grew by {grown_bytes / 2**30:.1f} GiB"
            )

    def take(self, attempt: Attempt, now: float) -> None:
        self.attempts[attempt.spec.clip_id] = replace(attempt, started_at=now)
        self.progress.pop(attempt.spec.clip_id, None)


class Pool:
    """Workers by their number.

    Args:
        room: clips that one worker holds at once.
        patience_s: how long a clip that waits on a machine's disk waits for a worker that is loading.
    """

    def __init__(self, room: int, patience_s: float) -> None:
        self._room = room
        self._patience_s = patience_s
        self.workers: dict[WorkerId, PooledWorker] = {}

    @property
    def nodes(self) -> set[str]:
        """Those on which workers are, and stay."""
        return {
            node
            for worker in self.workers.values()
            if worker.retires is None
            for node in worker.nodes
        }

    def places(self, now: float, num_wanted: int) -> "Places":
        """Where an attempt could go now. What is given away after this is not taken into account.

        Args:
            num_wanted: workers that there should be.
        """
        since = now - self._patience_s
        is_filling = any(
            not worker.is_ready and worker.asked_at >= since for worker in self.workers.values()
        )
        return Places(
            self.workers, self._room, now, is_filling=is_filling or len(self.workers) < num_wanted
        )


class Places:
    """The open workers at one moment, and who of them takes an attempt. Looked at once, for any number of attempts.

    Args:
        is_filling: further workers will soon be there.
    """

    def __init__(
        self, workers: Mapping[WorkerId, PooledWorker], room: int, now: float, *, is_filling: bool
    ) -> None:
        is_open = {number for number, worker in workers.items() if worker.is_open(now)}
        self.open = sorted(
            is_open, key=lambda number: (len(workers[number].blamed), number)
        )  # the least busy first
        self._workers = workers
        self._room = room
        self._is_filling = is_filling
        self._ready_nodes = {worker.node for worker in workers.values() if worker.is_ready}
        self._fitting: dict[tuple[str | None, frozenset[str]], list[WorkerId]] = {}

    def kept_free(self, waiting: Iterable[Attempt]) -> set[WorkerId]:
        """Busy workers that get nothing new, so that each suspect finds one to itself."""
        kept: set[WorkerId] = set()
        for attempt in waiting:
            if len(kept) == len(self.open):
                break
            if attempt.is_suspect:
                places = [number for number in self.fitting(attempt) if number not in kept]
                if (
                    places and not self._workers[places[0]].is_idle
                ):  # the least busy one comes first
                    kept.add(places[0])
        return kept

    def place(self, attempt: Attempt, kept: set[WorkerId]) -> WorkerId | None:
        """The worker that takes an attempt now; None where it has to wait.

        A clip that may have killed a worker gets one to itself: if it kills that one too, no other clip is blamed.
        """
        for number in self.fitting(attempt):
            is_fit = self._workers[number].is_idle if attempt.is_suspect else number not in kept
            if is_fit and self.has_room(number):
                return number
        return None

    def fitting(self, attempt: Attempt) -> list[WorkerId]:
        """Open workers that may take an attempt: on the machine on whose disk it waits, where it is waited for one that
        may still turn up; or else on another machine than those where a worker died with it, if one is open, which
        tells whether the clip or the machine is to blame.
        """
        key = attempt.node, frozenset(node for _, node in attempt.lost)
        if key not in self._fitting:
            if attempt.node is not None and (attempt.node in self._ready_nodes or self._is_filling):
                found = [
                    number for number in self.open if self._workers[number].node == attempt.node
                ]
            else:
                found = [
                    number for number in self.open if not self._workers[number].nodes & key[1]
                ] or self.open
            self._fitting[key] = found
        return self._fitting[key]

    def has_room(self, number: WorkerId) -> bool:
        worker = self._workers[number]
        return not worker.has_suspect and len(worker.attempts) < self._room
