"""One simulated worker: its device computes one clip after another, the rest goes on beside it.

Decides why an idle device is idle. Mirrors `jobs.worker.clip_worker`. Loads without torch.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from jobs.schedule.events import Attempt, WorkerId
from jobs.simulation.conditions import ClipTimes
from jobs.simulation.outcome import Loss
from jobs.types import ClipProgress, Stage, WorkerHeartbeat


@dataclass(eq=False, slots=True)
class HeldClip:
    """A clip that a worker holds, and the stage that it is in.

    Args:
        is_answered: True if it is committed, and the driver does not know it yet.
    """

    attempt: Attempt
    times: ClipTimes
    stage: Stage = "queue"
    is_answered: bool = False

    @property
    def waits_for(self) -> Loss:
        """The part of the farm for which a clip waits that has left the device."""
        if self.is_answered:
            return "driver"
        return "store" if self.stage == "upload" else "encoding"


@dataclass(eq=False, slots=True)
class SimulatedWorker:
    """A worker with its devices, from the moment at which it has them.

    Args:
        nodes: node of each of its devices.
        idle_since: moment since which its device computes nothing; None while it computes.
        idle_for: the reason of that.
        has_news: True if its next heartbeat differs from its last one.
    """

    number: WorkerId
    nodes: list[str]
    idle_since: float | None
    idle_for: Loss = "start"
    is_ready: bool = False
    is_gone: bool = False
    has_news: bool = True
    computing: HeldClip | None = None
    computing_since: float = 0.0
    queue: deque[HeldClip] = field(default_factory=deque[HeldClip])
    held: dict[str, HeldClip] = field(default_factory=dict[str, HeldClip])

    @property
    def node(self) -> str:
        return self.nodes[0]

    @property
    def has_suspect(self) -> bool:
        """Return True if it renders a clip that may have killed a worker."""
        return any(clip.attempt.is_suspect for clip in self.held.values())

    def take(self, clip: HeldClip) -> None:
        clip_id = clip.attempt.spec.clip_id
        self.held[clip_id] = clip
        self.has_news = True
        if clip.stage == "queue":
            self.queue.append(clip)

    def enter(self, clip: HeldClip, stage: Stage) -> None:
        """Let a clip begin its next stage."""
        clip.stage = stage
        self.has_news = True

    def hand_back(self, clip_id: str) -> bool:
        """Remove a clip from the queue; return False if the device has begun it."""
        clip = self.held.get(clip_id)
        if clip is None or clip.stage != "queue":
            return False
        self.queue.remove(clip)
        del self.held[clip_id]
        return True

    def reason_to_idle(self, room: int, *, is_plan_over: bool) -> Loss:
        """Return the reason why the device has no clip now.

        Args:
            room: number of clips that the worker may hold at once.
        """
        if len(self.held) >= room:
            found = Counter[Loss](clip.waits_for for clip in self.held.values())
            return found.most_common(1)[0][0]
        return "end" if is_plan_over else "driver"

    def heartbeat(self) -> WorkerHeartbeat:
        """Return the progress of its clips; none of them has stalled."""
        self.has_news = False
        return WorkerHeartbeat(
            tuple(
                ClipProgress(clip_id, clip.stage, None, 0.0) for clip_id, clip in self.held.items()
            ),
            0,
        )
