"""The states of a worker in the dispatch loop: loading, then running, then perhaps gone."""

from collections.abc import Iterable
from dataclasses import dataclass

from jobs.cluster.launcher import WorkerHandle
from pipelines.load_progress import NOT_LOADING, LoadPosition


@dataclass(eq=False)
class LoadingWorker:
    """A worker that has not loaded its model yet.

    Args:
        asked_s: the time at which it was asked for, by a monotonic clock.
        cordoned: the nodes on which it will not be placed.
        is_placed: True once it has its devices; from then on it is asked for heartbeats.
        heartbeat_asked_s: the time of the last `heartbeat` call.
        position: the position of its load at the last heartbeat.
    """

    handle: WorkerHandle
    asked_s: float
    cordoned: frozenset[str]
    is_placed: bool = False
    heartbeat_asked_s: float = 0.0
    position: LoadPosition = NOT_LOADING

    @property
    def label(self) -> str:
        return f"a worker that {'was loading' if self.is_placed else 'waited for a place'}"


@dataclass(eq=False)
class RunningWorker:
    """A worker that renders.

    Args:
        label: the worker's name in messages.
        heartbeat_asked_s: the time of the last `heartbeat` call, by a monotonic clock.
    """

    handle: WorkerHandle
    label: str
    heartbeat_asked_s: float = 0.0


@dataclass(frozen=True, eq=False)
class GoneWorker:
    """A worker whose process has died. The schedule stops it as soon as it gets the event."""

    handle: WorkerHandle
    label: str


WorkerState = LoadingWorker | RunningWorker | GoneWorker


def count_states(states: Iterable[WorkerState]) -> tuple[int, int, int]:
    """Return the numbers of workers that wait for a place, load their model, and render."""
    num_waiting = num_loading = num_ready = 0
    for state in states:
        is_placed = isinstance(state, LoadingWorker) and state.is_placed
        num_loading += is_placed
        num_waiting += isinstance(state, LoadingWorker) and not is_placed
        num_ready += isinstance(state, RunningWorker)
    return num_waiting, num_loading, num_ready
