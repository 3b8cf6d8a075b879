"""The states of one rank, as its group sees them, and the health of its device.

Decides after which failures a process must be replaced. Loads without torch and without Ray.
"""

from dataclasses import dataclass

from jobs.errors import FailureClass
from jobs.failures import classify

# After these a process must be replaced, and the schedule lets the worker go.
PROCESS_FAILURES: frozenset[FailureClass] = frozenset({"memory", "worker"})


@dataclass(frozen=True)
class Loading:
    """The rank has no model yet."""


@dataclass(frozen=True)
class Joined:
    """The rank is in a process group and can denoise."""


@dataclass(frozen=True)
class Detached:
    """The rank has its model and no process group. It can join the next generation.

    Args:
        broken_by: the class of the failure that broke the process group; None if the rank left
            without a failure or does not know the cause, as on a follower.
    """

    broken_by: FailureClass | None = None


@dataclass(frozen=True)
class Unusable:
    """The rank's memory or device has failed, and may fail with every other clip.

    Args:
        failed_by: the class of that failure.
        membership: the rank's part in the process group, which such a failure breaks only if it
            happened in the sharded denoise.
    """

    failed_by: FailureClass
    membership: Joined | Detached


RankState = Loading | Joined | Detached | Unusable


def membership_of(state: RankState) -> Loading | Joined | Detached:
    """Return the rank's part in the process group, whether or not its device is sound."""
    return state.membership if isinstance(state, Unusable) else state


def must_be_released(leader: Loading | Joined | Detached) -> bool:
    """Return True if the schedule lets the worker go because of what broke the process group.

    Args:
        leader: the membership of the leader, which knows the cause.
    """
    return isinstance(leader, Detached) and leader.broken_by in PROCESS_FAILURES


class DeviceHealth:
    """The first failure after which this process must be replaced, if there was one."""

    def __init__(self) -> None:
        self.failed_by: FailureClass | None = None

    def note(self, error: Exception) -> None:
        """Mark this process unusable after an out-of-memory or device error.

        Diverging latents (`RanksDisagreeError`) are of the class `worker` and count as a device
        error.
        """
        self.note_class(classify(error)[0])

    def note_class(self, failure_class: FailureClass) -> None:
        """Mark this process unusable if the class is one of `PROCESS_FAILURES`."""
        if failure_class in PROCESS_FAILURES and self.failed_by is None:
            self.failed_by = failure_class
