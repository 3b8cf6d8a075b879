"""What a driver says of its run while it goes on: one small document beside run.json, overwritten every few seconds.

Decides what the document holds and where it lies. Nothing rests on it: what is committed is what has a record. When it
is written is for `dispatch` and `lease`, how it is shown for `status`.
"""

from dataclasses import dataclass
from typing import Literal, Self

from jobs.errors import FailureClass, RecordError
from jobs.records.commit import JSON, read_as
from jobs.records.keys import STATUS_FILE, check_clip_id, check_run_id, run_key
from jobs.records.schema import check_at_least, check_time
from jobs.records.strict_json import dump, from_dataclass, load, to_dataclass
from jobs.store.store import Store
from jobs.types import ClipFailed, Stage

RunState = Literal["rendering", "draining", "finished", "stopped"]


@dataclass(frozen=True)
class ClipInFlight:
    """A clip that a worker holds.

    Args:
        step: the last denoise step that is known to have ended, from 0; None before the first and in other stages.
        running_s: since this attempt was handed to the worker.
    """

    clip_id: str
    name: str
    worker: str
    stage: Stage
    step: int | None
    num_steps: int
    running_s: float

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)


@dataclass(frozen=True)
class FailureSeen:
    """One of the last failures; the whole of it is its FailureRecord."""

    clip_id: str
    name: str
    failure_class: FailureClass
    error_type: str
    message: str
    failed_at: str

    def __post_init__(self) -> None:
        check_clip_id(self.clip_id)
        check_time("failed_at", self.failed_at)

    @classmethod
    def of(cls, failed: ClipFailed, failed_at: str) -> Self:
        return cls(
            failed.clip_id,
            failed.name,
            failed.failure_class,
            failed.error_type,
            failed.message[:1000],
            failed_at,
        )


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands.

    Args:
        updated_at: when this was written, by the driver's clock.
        num_clips: of the manifest, those that were done before included.
        num_committed, num_quarantined, num_failures: of this run alone.
        clips_per_hour, eta_s: None until there is enough to go by.
    """

    run_id: str
    state: RunState
    updated_at: str
    num_clips: int
    num_done_before: int
    num_committed: int
    num_quarantined: int
    num_failures: int
    num_workers: int
    num_workers_lost: int
    elapsed_s: float
    clips_per_hour: float | None
    eta_s: float | None
    in_flight: tuple[ClipInFlight, ...]
    last_failures: tuple[FailureSeen, ...]

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        check_time("updated_at", self.updated_at)
        for name in (
            "num_clips", "num_done_before", "num_committed", "num_quarantined", "num_failures", "num_workers",
            "num_workers_lost",
        ):  # fmt: skip
            check_at_least(name, getattr(self, name), 0)
        if self.elapsed_s < 0:
            raise RecordError(f"elapsed_s must be at least 0, not {self.elapsed_s}")

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Raises RecordError if the document is damaged, or another version's."""
        return to_dataclass(cls, load(content))


def write_status(store: Store, status: RunStatus) -> None:
    store.put(run_key(status.run_id, STATUS_FILE), status.to_json(), JSON)


def read_status(store: Store, run_id: str) -> RunStatus:
    """Raises ObjectMissingError if the run has written none yet, RecordError if what is there is none."""
    return read_as(store, run_key(run_id, STATUS_FILE), RunStatus.from_json)
