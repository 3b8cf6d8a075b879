"""What can happen to a run, and what its schedule can want done: the language between `schedule` and `dispatch`.

Decides nothing. Loads without torch.
"""

from dataclasses import dataclass, field

from jobs.errors import JobError
from jobs.schedule.retry import Decision
from jobs.types import ClipDone, ClipFailed, ClipSpec, WorkerHeartbeat

WorkerId = int  # in the order in which they were asked for; none is used twice


@dataclass(frozen=True)
class Planned:
    """The next clip of the plan, as `TakeClip` asked for it; None where there is no other."""

    spec: ClipSpec | None


@dataclass(frozen=True)
class WorkerReady:
    """The worker has loaded its model.

    Args:
        label: what people call the worker.
        node: what the cluster calls its machine.
        spooled: ids of clips that an earlier worker has left on that machine, encoded and not committed.
        others: the further machines of a worker that lies on several.
    """

    worker: WorkerId
    label: str
    node: str
    spooled: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


@dataclass(frozen=True)
class WorkerNotLoaded:
    """The worker has not loaded its model.

    Args:
        is_final: another attempt would fail in the same way.
        is_store: the store did not answer, which is no worker's fault.
        is_charged: it counts towards the end of the run; False where its machine was taken away, or has no room for it.
    """

    worker: WorkerId
    message: str
    is_final: bool = False
    is_store: bool = False
    is_charged: bool = True


@dataclass(frozen=True)
class HeartbeatReceived:
    """A worker has said what it is at, as it does every few seconds while it computes."""

    worker: WorkerId
    heartbeat: WorkerHeartbeat


@dataclass(frozen=True)
class ClipEnded:
    """A worker has answered for a clip."""

    worker: WorkerId
    outcome: ClipDone | ClipFailed


@dataclass(frozen=True)
class WorkerLost:
    """The worker's process is gone, with the clips that it had.

    Args:
        is_preempted: it was taken away on purpose, which is no clip's fault.
    """

    worker: WorkerId
    message: str
    is_preempted: bool = False


@dataclass(frozen=True)
class NodesDraining:
    """The cluster will take these machines away: all of them, each time that they are told of."""

    nodes: frozenset[str]


@dataclass(frozen=True)
class StopRequested:
    """Somebody wants the run to end: what is in flight has `workers.drain_s` to finish."""

    reason: str


@dataclass(frozen=True)
class Tick:
    """Nothing happened but time."""


Event = (
    Planned
    | WorkerReady
    | WorkerNotLoaded
    | HeartbeatReceived
    | ClipEnded
    | WorkerLost
    | NodesDraining
    | StopRequested
    | Tick
)  # fmt: skip


@dataclass(frozen=True)
class StartWorker:
    """Ask for a worker, which answers `WorkerReady` or `WorkerNotLoaded`.

    Args:
        avoid: nodes that it must not run on.
    """

    worker: WorkerId
    avoid: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StopWorker:
    """End the worker's process, if it lives; it is never heard of again.

    Args:
        is_lost: it failed; False where it is done with, such as after its share of clips.
        may_return: what of it is still sound may be used for the next worker; False where all is to be made anew.
    """

    worker: WorkerId
    message: str
    is_lost: bool = True
    may_return: bool = False


@dataclass(frozen=True)
class TakeClip:
    """Answer with the plan's next clip: a worker has room for it."""


@dataclass(frozen=True)
class Attempt:
    """One try at one clip.

    Args:
        number: of tries, this one included, those that nobody is blamed for too.
        failures: the earlier ones that the clip is charged with.
        uses_exact_attention: to be rendered with the safer setting.
        node: the machine on whose disk it waits, encoded, for the store.
        lost: the workers that died with it, and their nodes.
        num_bystander_losses: ends of workers that it saw without being charged, since another clip was being computed.
        started_at: when a worker was given it, by the schedule's clock.
    """

    spec: ClipSpec
    number: int = 1
    failures: tuple[ClipFailed, ...] = field(default=(), repr=False)
    uses_exact_attention: bool = False
    node: str | None = None
    lost: tuple[tuple[WorkerId, str], ...] = ()
    num_bystander_losses: int = 0
    started_at: float = 0.0

    @property
    def is_suspect(self) -> bool:
        """It may be what killed its worker."""
        return bool(self.failures)


@dataclass(frozen=True)
class StartClip:
    """Have the worker render a clip."""

    worker: WorkerId
    attempt: Attempt


@dataclass(frozen=True)
class ReportFailure:
    """Write down a failed attempt, and with `Quarantine` that the clip is in quarantine."""

    failed: ClipFailed
    decision: Decision


@dataclass(frozen=True)
class Halt:
    """End the run: nothing further can come of it."""

    error: JobError


Command = StartWorker | StopWorker | TakeClip | StartClip | ReportFailure | Halt
