"""The work of a scoring run, in pieces that a worker takes, and what becomes of each.

All are frozen and picklable. Loads without torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.settings.run_config import StoreConfig
from pipelines.scoring.measures import MeasureSpec


@dataclass(frozen=True)
class ScoringSetup:
    """The setup of every worker of a scoring run.

    Args:
        uri: the output.
        store: its settings.
        measures: the measures, with the source as people wrote it.
        revisions: revision of the weights of each measure, by name, as the driver found it; a
            worker with other weights is refused.
        num_threads: torch's threads in a worker.
    """

    uri: str
    store: StoreConfig
    measures: tuple[MeasureSpec, ...]
    revisions: Mapping[str, str]
    num_threads: int = 1


@dataclass(frozen=True)
class ClipTask:
    """A committed clip, and the measures that it lacks."""

    clip_id: str
    measures: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"clip {self.clip_id}"


@dataclass(frozen=True)
class PicturesTask:
    """Some reference pictures, which a measure of a set places in feature space.

    Args:
        measure: name of the measure.
        pictures: the bytes of each file, by name.
    """

    measure: str
    pictures: tuple[tuple[str, bytes], ...] = field(repr=False)

    @property
    def name(self) -> str:
        return f"{len(self.pictures)} references from {self.pictures[0][0]}"


Task = ClipTask | PicturesTask


@dataclass(frozen=True)
class Refusal:
    """A measure that does not apply to a clip or a picture, and why."""

    name: str
    measure: str
    message: str


@dataclass(frozen=True)
class TaskDone:
    """The result of a task.

    Args:
        num_written: score records that were written.
        refusals: measures that gave nothing.
        vectors: base64 of the points of pictures; empty for a clip.
        num_vectors: their number.
    """

    task: Task
    num_written: int = 0
    refusals: tuple[Refusal, ...] = ()
    vectors: str = ""
    num_vectors: int = 0


@dataclass(frozen=True)
class TaskFailed:
    """A task that a worker could not do; nothing of it was written, or a part.

    Args:
        may_pass_on_retry: True if another try may help, as after an outage of the store.
    """

    task: Task
    message: str
    may_pass_on_retry: bool = False


TaskOutcome = TaskDone | TaskFailed
