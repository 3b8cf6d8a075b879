"""The protocol by which the dispatch loop reports the events of a run."""

from collections.abc import Sequence
from typing import Protocol

from jobs.costs.device_ledger import DeviceEvent
from jobs.errors import ModelFailedError
from jobs.metrics.run_metrics import WorkerCounts
from jobs.records.schema import WorkerIdentity
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision
from jobs.types import ClipDone, ClipFailed, WorkerHeartbeat
from pipelines.load_progress import LoadPosition


class Observer(Protocol):
    """Receives the events of a run as they happen, in the thread of the loop."""

    def workers_waiting(self, devices: str | None) -> None:
        """Note the devices that workers wait for, and who has them; None if no worker waits."""
        ...

    def workers_loading(self, positions: Sequence[LoadPosition]) -> None:
        """Note how far each worker that loads its model is; empty if none loads."""
        ...

    def workers_counted(self, counts: Sequence[WorkerCounts]) -> None:
        """Note the workers of each kind that has begun, at each turn of the loop."""
        ...

    def devices_changed(self, event: DeviceEvent) -> None:
        """Note that a worker has got devices, is ready on them, or has left them."""
        ...

    def worker_ready(self, label: str, identity: WorkerIdentity, warning: str = "") -> None:
        """Note that a worker has loaded its model, and what it says about its memory, if any."""
        ...

    def worker_stopped(
        self, label: str, message: str, *, is_ready: bool, is_lost: bool
    ) -> None: ...

    def worker_released(self, label: str, message: str, *, is_ready: bool) -> None:
        """Note the end of a worker since no clip is left for it, or for the reason in `message`."""
        ...

    def model_failed(self, model: str, error: ModelFailedError) -> None:
        """Note that the clips of a model cannot go on, while those of others do."""
        ...

    def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None: ...

    def clip_started(self, label: str, attempt: Attempt) -> None: ...

    def clip_returned(self, clip_id: str) -> None: ...

    def clip_done(self, done: ClipDone) -> None: ...

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None: ...

    def tick(self) -> None:
        """Do what is due at the end of each turn of the loop, so at least every half second.

        An error that it raises ends the run.
        """
        ...
