"""The groups whose ranks are killed and stopped, and the clips that they render.

The clips are of the real Shapes models and long enough to be hit at any step.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.parallel_config import ParallelConfig
from tests.chaos.harness.workload import Workload

NUM_STEPS = 16


@dataclass(frozen=True)
class RankGroup:
    """A group of ranks, and the model that it renders."""

    model: str
    parallel: ParallelConfig

    @property
    def size(self) -> int:
        return self.parallel.degree


GROUPS = {
    group.size: group
    for group in (
        RankGroup("shapes-wan", ParallelConfig(ulysses=2)),
        RankGroup("shapes-wan", ParallelConfig(ulysses=2, ring=2)),
    )
}


@dataclass(frozen=True)
class RankWorkload(Workload):
    """The clips of one group.

    Args:
        group: group that renders the clips.
        notes: folder to which the group's ranks write their notes.
    """

    group: RankGroup = GROUPS[2]
    notes: Path = Path()

    @classmethod
    def make(cls, num_clips: int, group: RankGroup, notes: Path) -> "RankWorkload":
        return cls(num_clips, NUM_STEPS, family="ranks", group=group, notes=notes)

    @property
    def model(self) -> str:
        return self.group.model

    @property
    def loader_argument(self) -> str:
        return str(self.notes)

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows; the seed of each is its number, by which its notes are found."""
        for seed in range(self.num_clips):
            yield {
                "name": f"clip-{seed:05}",
                "prompt": "a red circle moving right",
                "negative_prompt": "blue",
                "seed": seed,
                "num_inference_steps": self.num_steps,
                "parallel": asdict(self.group.parallel),
            }
