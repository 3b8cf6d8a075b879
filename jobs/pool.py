"""The workers of a run as its schedule knows them, and which of them takes an attempt.

Decides about places alone: who is open, who is kept free, where a clip that waits on a disk has to go. What follows
from failures is `schedule`'s. Loads without torch.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from jobs.events import Attempt, WorkerId
from jobs.types import ClipProgress


@dataclass(eq=False)
class PooledWorker:
    """What is known of one worker, and what it has been given.

    Args:
        asked_at: when it was asked for; `heard_at`: when it last said something.
        retires: why it gets no more clips; None while it does.
        paused_until: when the store may take clips again.
    """

    asked_at: float
    heard_at: float
    label: str = "a worker that was loading"
    node: str | None = None  # None while it loads its model
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])  # by clip_id
    progress: dict[str, ClipProgress] = field(default_factory=dict[str, ClipProgress])
    num_failures_in_a_row: int = 0
    num_done: int = 0
    started_at: dict[str, float] = field(default_factory=dict[str, float])  # of its attempts, by clip_id
    first_memory_bytes: int | None = None
    retires: str | None = None
    is_draining: bool = False
    paused_until: float = 0.0
    back_off_s: float = 0.0

    @property
    def is_ready(self) -> bool:
        return self.node is not None

    @property
    def has_suspect(self) -> bool:
        return any(attempt.is_suspect for attempt in self.attempts.values())

    @property
    def blamed(self) -> list[str]:
        """Clips that may be why the worker is gone: what it last said may be some seconds old, so only those are left
        out that it had done its own part of.
        """
        is_done = {progress.clip_id for progress in self.progress.values() if progress.stage == "upload"}
        return [clip_id for clip_id in self.attempts if clip_id not in is_done]

    def take(self, attempt: Attempt, now: float) -> None:
        self.attempts[attempt.spec.clip_id] = attempt
        self.started_at[attempt.spec.clip_id] = now
        self.progress.pop(attempt.spec.clip_id, None)


class Pool:
    """Workers by their number.

    Args:
        room: clips that one worker holds at once.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self.workers: dict[WorkerId, PooledWorker] = {}

    @property
    def nodes(self) -> set[str]:
        """Those on which workers are."""
        return {worker.node for worker in self.workers.values() if worker.node is not None}

    def open(self, now: float) -> list[WorkerId]:
        """Those that take clips, the least busy first."""
        open_ones = [
            number
            for number, worker in self.workers.items()
            if worker.is_ready and worker.retires is None and worker.paused_until <= now
        ]
        return sorted(open_ones, key=lambda number: len(self.workers[number].attempts))

    def kept_free(self, waiting: Iterable[Attempt], now: float) -> set[WorkerId]:
        """Busy workers that get nothing new, so that each suspect finds one to itself."""
        kept: set[WorkerId] = set()
        for attempt in waiting:
            if attempt.is_suspect and not any(
                number not in kept for number in self._for(attempt, now) if self._is_idle(number)
            ):
                kept.update([number for number in self._for(attempt, now) if number not in kept][:1])
        return kept

    def place(self, attempt: Attempt, kept: set[WorkerId], now: float) -> WorkerId | None:
        """The worker that takes an attempt now; None where it has to wait.

        A clip that may have killed a worker gets one to itself: if it kills that one too, no other clip is blamed.
        """
        for number in self._for(attempt, now):
            if self._is_idle(number) if attempt.is_suspect else self.has_room(number) and number not in kept:
                return number
        return None

    def _for(self, attempt: Attempt, now: float) -> Iterator[WorkerId]:
        """Open workers that may take an attempt, while there are such: on the machine on whose disk it waits, for which
        it waits as long as a worker is loading that may turn up there; or else on another machine than those where a
        worker died with it, which tells whether the clip or the machine is to blame.
        """
        ready = [worker for worker in self.workers.values() if worker.is_ready]
        open_nodes = {worker.node for worker in ready if worker.retires is None}
        fitting = {attempt.node} & {worker.node for worker in ready}
        if attempt.node is not None and not fitting and len(ready) < len(self.workers):
            return
        fitting = fitting or open_nodes - {node for _, node in attempt.lost} or open_nodes
        for number in self.open(now):
            if self.workers[number].node in fitting:
                yield number

    def _is_idle(self, number: WorkerId) -> bool:
        return not self.workers[number].attempts

    def has_room(self, number: WorkerId) -> bool:
        worker = self.workers[number]
        return not worker.has_suspect and len(worker.attempts) < self._room
