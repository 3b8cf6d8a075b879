"""The states of a worker in the dispatch loop: loading, then running, then perhaps gone.

Each state names the references of Ray's calls whose answers the loop waits for. Decides nothing.
"""

from dataclasses import dataclass, field
from typing import Any

from jobs.cluster.launcher import WorkerHandle


@dataclass(eq=False)
class LoadingWorker:
    """A worker that has not loaded its model yet.

    Args:
        asked_s: the time at which it was asked for, by a monotonic clock.
        cordoned: the nodes on which it will not be placed.
        is_placed: True once it has its devices.
    """

    handle: WorkerHandle
    asked_s: float
    cordoned: frozenset[str]
    is_placed: bool = False

    @property
    def label(self) -> str:
        return f"a worker that {'was loading' if self.is_placed else 'waited for a place'}"

    @property
    def awaited(self) -> list[Any]:
        return [*([] if self.is_placed else [self.handle.placed]), self.handle.load]


@dataclass(eq=False)
class RunningWorker:
    """A worker that renders.

    Args:
        label: the worker's name in messages.
        clips: the references of its `render` calls.
        heartbeat: the reference of the `heartbeat` call whose answer has not come yet.
        heartbeat_due_s: the time of the next `heartbeat` call, by a monotonic clock.
    """

    handle: WorkerHandle
    label: str
    clips: list[Any] = field(default_factory=list[Any])
    heartbeat: Any = None
    heartbeat_due_s: float = 0.0

    @property
    def awaited(self) -> list[Any]:
        return [*self.clips, *([self.heartbeat] if self.heartbeat is not None else [])]


@dataclass(frozen=True, eq=False)
class GoneWorker:
    """A worker whose process has died. The schedule stops it as soon as it gets the event."""

    handle: WorkerHandle
    label: str

    @property
    def awaited(self) -> list[Any]:
        return []


WorkerState = LoadingWorker | RunningWorker | GoneWorker
