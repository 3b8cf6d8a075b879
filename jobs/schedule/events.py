"""The events that a schedule takes in and the commands that it gives out.

`jobs/cluster/dispatcher.py` makes the events from a Ray cluster and carries out the commands.
Loads without torch.
"""

from dataclasses import dataclass, field

from jobs.errors import JobError
from jobs.schedule.retry import Decision
from jobs.types import ClipDone, ClipFailed, ClipSpec, WorkerHeartbeat

WorkerId = int  # counts up from 0 in the order of `StartWorker`; an id is never used again


@dataclass(frozen=True)
class Planned:
    """The plan's answer to `TakeClip`: its next clip, or None at the end of the plan."""

    spec: ClipSpec | None


@dataclass(frozen=True)
class PlanWaits:
    """The plan's answer to `TakeClip` if its next clip is not ready; a `Tick` asks again."""


@dataclass(frozen=True)
class RoomSeen:
    """The cluster's room for workers, as it is now.

    Args:
        num_wanted: number of workers to keep.
        lacking: the resources that no node has; None if at least one worker fits.
        others_wait: True if workers without a clip should give their places back.
        most: number of workers above which workers are given to other runs after their clip, and
            none is asked for; None without such runs.
        wanted_on: nodes on which those runs could use a place; None for every node.
    """

    num_wanted: int
    lacking: str | None = None
    others_wait: bool = False
    most: int | None = None
    wanted_on: frozenset[str] | None = None


@dataclass(frozen=True)
class WorkerPlaced:
    """A worker has got its devices and begins to load its model."""

    worker: WorkerId


@dataclass(frozen=True)
class WorkerReady:
    """A worker has loaded its model.

    Args:
        label: the worker's name in logs and records.
        node: Ray's id of the worker's node; for a group, the leader's.
        spooled: ids of encoded clips that an earlier worker left uncommitted on that node's disk.
        others: further nodes of a group that spans several.
    """

    worker: WorkerId
    label: str
    node: str
    spooled: frozenset[str] = frozenset()
    others: frozenset[str] = frozenset()


@dataclass(frozen=True)
class WorkerNotLoaded:
    """A worker failed to load its model.

    Args:
        is_final: True if another try would fail in the same way.
        is_store: True if the store did not answer, so the worker is not at fault.
        is_charged: True if the failure counts towards the end of the run; False if the node was
            preempted.
    """

    worker: WorkerId
    message: str
    is_final: bool = False
    is_store: bool = False
    is_charged: bool = True


@dataclass(frozen=True)
class HeartbeatReceived:
    """A worker has reported its progress, as it does every few seconds while it computes."""

    worker: WorkerId
    heartbeat: WorkerHeartbeat


@dataclass(frozen=True)
class ClipEnded:
    """A worker has finished an attempt: the clip is committed, or the attempt failed."""

    worker: WorkerId
    outcome: ClipDone | ClipFailed


@dataclass(frozen=True)
class ClipReturned:
    """A worker has handed back a recalled clip without having begun it."""

    worker: WorkerId
    clip_id: str


@dataclass(frozen=True)
class WorkerLost:
    """A worker's process is gone, together with the clips that it had in flight.

    Args:
        is_preempted: True if the node was taken away on purpose, so no clip is at fault.
    """

    worker: WorkerId
    message: str
    is_preempted: bool = False


@dataclass(frozen=True)
class NodesDraining:
    """The nodes that the cluster is about to remove: always the complete set, not a delta."""

    nodes: frozenset[str]


@dataclass(frozen=True)
class StopRequested:
    """A request to end the run; clips in flight have `workers.drain_s` to finish."""

    reason: str


@dataclass(frozen=True)
class TimeLeft:
    """The time until the deadline of the run; it comes before each `Tick` of a run that has one.

    Args:
        seconds: seconds until the deadline, 0 or below from then on.
        has_clips: False if every clip that is left in the plan would end too late.
    """

    seconds: float
    has_clips: bool = True


@dataclass(frozen=True)
class Tick:
    """The passing of time, sent after all other events of a turn of the dispatch loop."""


Event = (
    Planned
    | PlanWaits
    | RoomSeen
    | WorkerPlaced
    | WorkerReady
    | WorkerNotLoaded
    | HeartbeatReceived
    | ClipEnded
    | ClipReturned
    | WorkerLost
    | NodesDraining
    | StopRequested
    | TimeLeft
    | Tick
)  # fmt: skip


@dataclass(frozen=True)
class StartWorker:
    """Start a worker; it answers with `WorkerPlaced`, then `WorkerReady` or `WorkerNotLoaded`.

    Args:
        cordoned: nodes on which the worker must not run.
    """

    worker: WorkerId
    cordoned: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StopWorker:
    """End the worker's process if it lives, and drop its later events.

    Args:
        is_lost: True if the worker failed; False if it is replaced without a fault, such as after
            its share of clips.
        may_return: True if sound processes of the worker may serve in the next one; False if all
            of them must be started anew.
    """

    worker: WorkerId
    message: str
    is_lost: bool = True
    may_return: bool = False


@dataclass(frozen=True)
class ReleaseWorker:
    """End a worker that has no clips, so that another kind, run or job gets its place.

    Args:
        message: reason for people; empty if it goes without saying.
    """

    worker: WorkerId
    message: str = ""


@dataclass(frozen=True)
class TakeClip:
    """Answer with `Planned`, the next clip of the plan, or `PlanWaits`: a worker has room."""


@dataclass(frozen=True)
class Attempt:
    """One try at one clip.

    Args:
        number: count of tries, from 1, with this one and with those charged to no clip.
        failures: earlier failures that are charged to the clip.
        uses_exact_attention: True if the clip is rendered with exact attention.
        node: node on whose disk the clip waits, encoded, for the store; None if on none.
        losses: workers that died with the clip, each with one of its nodes.
        num_bystander_losses: workers that died with the clip while another clip was computed.
        started_at: moment at which a worker got the attempt, in seconds of the schedule's clock.
    """

    spec: ClipSpec
    number: int = 1
    failures: tuple[ClipFailed, ...] = field(default=(), repr=False)
    uses_exact_attention: bool = False
    node: str | None = None
    losses: tuple[tuple[WorkerId, str], ...] = ()
    num_bystander_losses: int = 0
    started_at: float = 0.0

    @property
    def is_suspect(self) -> bool:
        """Return True if the clip may have killed a worker, so that it must be tried alone."""
        return bool(self.failures)


@dataclass(frozen=True)
class StartClip:
    """Have the worker render a clip."""

    worker: WorkerId
    attempt: Attempt


@dataclass(frozen=True)
class RecallClip:
    """Ask the worker for `ClipReturned`; if it has begun the clip, it goes on with it."""

    worker: WorkerId
    clip_id: str


@dataclass(frozen=True)
class ReportFailure:
    """Write the failed attempt to the store and, if the decision is `Quarantine`, that as well."""

    failed: ClipFailed
    decision: Decision


@dataclass(frozen=True)
class Halt:
    """End the run with this error; no command follows."""

    error: JobError


Command = (
    StartWorker
    | StopWorker
    | ReleaseWorker
    | TakeClip
    | StartClip
    | RecallClip
    | ReportFailure
    | Halt
)  # fmt: skip
