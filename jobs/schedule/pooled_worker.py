"""The states of one worker in the pool, and the clips that it has in flight.

A worker is `Waiting` for a place, then `Loading`, and then a `LoadedWorker` whose state is `Ready`,
`Paused` or `Retiring`. Loads without torch.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

from jobs.errors import FailureClass
from jobs.schedule.deadlines import COMPUTE_STAGES, Deadlines, PreparationKey, preparation_key
from jobs.schedule.events import Attempt, WorkerId
from jobs.schedule.outage import Outage
from jobs.settings.run_config import WorkerConfig
from jobs.text import counted
from jobs.types import ClipProgress


@dataclass(frozen=True)
class Waiting:
    """A worker that waits for its devices, which other jobs may hold.

    Args:
        cordoned: nodes on which it will not be placed.
    """

    asked_at: float
    cordoned: frozenset[str]


@dataclass(frozen=True)
class Loading:
    """A worker that has its devices and loads its model; it has no clips and no known node yet.

    Args:
        asked_at: moment at which it had its devices.
    """

    asked_at: float


@dataclass(frozen=True)
class Ready:
    """The state of a worker that takes clips."""


@dataclass(frozen=True)
class Paused:
    """The state of a worker whose last clip the store refused.

    Args:
        until: moment from which the worker takes clips again.
        back_off_s: length of the pause in seconds; the next one is longer, until a clip is done.
    """

    until: float
    back_off_s: float


@dataclass(frozen=True)
class Retiring:
    """The state of a worker that takes no more clips and stops once its last one has ended.

    Args:
        is_draining: True if its process or one of its nodes is about to be taken away.
        is_given_back: True if its place is for another run.
    """

    reason: str
    is_draining: bool = False
    is_given_back: bool = False


@dataclass(frozen=True)
class Loss:
    """The end of a worker that had clips in flight.

    Args:
        attributed: ids of the clips that are charged with the loss.
        bystanders: ids of the clips that were in flight while another one was computed.
    """

    message: str
    attributed: frozenset[str] = frozenset()
    bystanders: frozenset[str] = frozenset()
    failure_class: FailureClass = "worker"


@dataclass(eq=False)
class LoadedWorker:
    """A worker that has loaded its model.

    Args:
        node: node on which its clips are encoded.
        others: further nodes of a group that spans several.
        heard_at: moment of its last heartbeat or answer.
        ended_at: moment at which its last clip ended; 0 before.
        attempts: attempts in flight, by clip_id.
        progress: progress in the last heartbeat, by clip_id.
        recalled: ids of clips in flight that it was asked to hand back.
        prepared_for: preparation keys of the clips that it has rendered.
        first_memory_bytes: host memory after its first clip, for comparison; None before.
    """

    number: WorkerId
    label: str
    node: str
    others: frozenset[str]
    heard_at: float
    ended_at: float = 0.0
    state: Ready | Paused | Retiring = field(default_factory=Ready)
    attempts: dict[str, Attempt] = field(default_factory=dict[str, Attempt])
    progress: dict[str, ClipProgress] = field(default_factory=dict[str, ClipProgress])
    recalled: set[str] = field(default_factory=set[str])
    num_failures_in_a_row: int = 0
    num_done: int = 0
    prepared_for: set[PreparationKey] = field(default_factory=set[PreparationKey])
    first_memory_bytes: int | None = None

    @cached_property
    def nodes(self) -> frozenset[str]:
        """Return all nodes that the worker needs."""
        return self.others | {self.node}

    @property
    def is_draining(self) -> bool:
        return isinstance(self.state, Retiring) and self.state.is_draining

    def is_open(self, now: float) -> bool:
        """Return True if the worker takes clips now."""
        return isinstance(self.state, Ready) or (
            isinstance(self.state, Paused) and self.state.until <= now
        )

    # state

    def pause(self, outage: Outage, now: float) -> None:
        """Back off after the store refused a clip; a pause that still lasts is not made longer."""
        if isinstance(self.state, Retiring) or not self.is_open(now):
            return
        back_off_s = self.state.back_off_s if isinstance(self.state, Paused) else 0.0
        back_off_s = outage.next_back_off(back_off_s)
        self.state = Paused(now + back_off_s, back_off_s)

    def drain(self, reason: str) -> None:
        """Retire a worker whose process or node is about to be taken away."""
        self.state = Retiring(reason, is_draining=True)

    def retire(self, reason: str) -> None:
        if not isinstance(self.state, Retiring):
            self.state = Retiring(reason)

    @property
    def is_given_back(self) -> bool:
        return isinstance(self.state, Retiring) and self.state.is_given_back

    def consider_recycling(self, limits: WorkerConfig, memory_bytes: int) -> None:
        """Retire the worker if it has rendered its share of clips, or if its memory has grown.

        Args:
            memory_bytes: host memory in use by its process.
        """
        if self.first_memory_bytes is None and self.num_done:
            self.first_memory_bytes = memory_bytes or None
        grown_bytes = memory_bytes - (self.first_memory_bytes or memory_bytes)
        if limits.recycle_after_clips is not None and self.num_done >= limits.recycle_after_clips:
            self.retire(f"recycled after {counted(self.num_done, 'clip')}")
        if limits.recycle_growth_bytes is not None and grown_bytes > limits.recycle_growth_bytes:
            self.retire(f"recycled: its memory grew by {grown_bytes / 2**30:.1f} GiB")

    # clips in flight

    def take(self, attempt: Attempt, now: float) -> None:
        self.attempts[attempt.spec.clip_id] = replace(attempt, started_at=now)
        self.progress.pop(attempt.spec.clip_id, None)

    def pop(self, clip_id: str) -> Attempt | None:
        """Remove an attempt that has ended, and return it; None if it is not in flight."""
        self.recalled.discard(clip_id)
        return self.attempts.pop(clip_id, None)

    def record_done(self) -> None:
        """Count a committed clip, and end the pause, since the store takes clips."""
        self.num_done += 1
        self.num_failures_in_a_row = 0
        if isinstance(self.state, Paused):
            self.state = Ready()

    @property
    def attributable(self) -> list[str]:
        """Return the clips that could be at fault if the worker died: those not in upload.

        The last heartbeat may be some seconds old, so a clip that was waiting then counts too.
        """
        return [
            clip_id
            for clip_id in self.attempts
            if clip_id not in self.progress or self.progress[clip_id].stage != "upload"
        ]

    @property
    def queued(self) -> list[Attempt]:
        """Return the clips that the device has not begun, by the last heartbeat, oldest first.

        If no clip was being computed then, the device has begun the oldest one since.
        """
        queued = [
            attempt
            for clip_id, attempt in self.attempts.items()
            if clip_id not in self.progress or self.progress[clip_id].stage in ("lookup", "queue")
        ]
        return queued if self.is_computing else queued[1:]

    @property
    def is_computing(self) -> bool:
        """Return True if a clip was being computed at the last heartbeat."""
        return any(self._is_computing(clip_id) for clip_id in self.attempts)

    def is_past_device(self, clip_id: str) -> bool:
        """Return True if the device had ended a clip at the last heartbeat."""
        progress = self.progress.get(clip_id)
        return progress is not None and progress.stage in ("encode", "check", "upload")

    def has_room(self, room: int) -> bool:
        """Return True if the worker has room for a further clip; a suspect has it to itself.

        Args:
            room: number of clips that one worker holds at once.
        """
        return len(self.attempts) < room and not any(
            self.attempts[clip_id].is_suspect for clip_id in self.attributable
        )

    def stalls(self, deadlines: Deadlines) -> dict[str, str]:
        """Return a failure message for each stalled clip, by clip_id."""
        messages = {
            clip_id: deadlines.stall_message(
                attempt,
                self.progress[clip_id],
                is_first=preparation_key(attempt) not in self.prepared_for,
            )
            for clip_id, attempt in self.attempts.items()
            if clip_id in self.progress and self.progress[clip_id].age_s > deadlines.least_s
        }
        return {clip_id: message for clip_id, message in messages.items() if message is not None}

    def lost(self, message: str, failure_class: FailureClass = "worker") -> Loss:
        """Split the clips in flight into those charged with the worker's loss and bystanders.

        The loss is attributed to the clips computing at the last heartbeat, or to all if unknown.
        The heartbeat may be old, and a clip that waited then the one that killed the worker, so a
        bystander of an earlier loss is charged with the second one.
        """
        attributable = self.attributable
        computing = {clip_id for clip_id in attributable if self._is_computing(clip_id)}
        again = {clip_id for clip_id in attributable if self.attempts[clip_id].num_bystander_losses}
        attributed = (computing or set(attributable)) | again
        bystanders = frozenset(attributable) - attributed
        return Loss(message, frozenset(attributed), bystanders, failure_class)

    def charge(self, attempt: Attempt) -> Attempt:
        """Return the attempt with this worker, on each of its nodes, among its losses."""
        losses = ((self.number, node) for node in sorted(self.nodes))
        return replace(attempt, losses=(*attempt.losses, *losses))

    def _is_computing(self, clip_id: str) -> bool:
        return clip_id in self.progress and self.progress[clip_id].stage in COMPUTE_STAGES


PooledWorker = Waiting | Loading | LoadedWorker
