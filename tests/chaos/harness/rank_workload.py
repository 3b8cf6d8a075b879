"""Which groups are struck at, and what they render: clips of the real Shapes models, long enough to be hit anywhere.

Decides sizes, models and steps.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.parallel_config import ParallelConfig
from tests.chaos.harness.workload import Workload

NUM_STEPS = 16


@dataclass(frozen=True)
class Group:
    """A kind of group, and the model that it renders."""

    model: str
    parallel: ParallelConfig

    @property
    def size(self) -> int:
        return self.parallel.degree


GROUPS = {
    group.size: group
    for group in (
        Group("shapes-wan", ParallelConfig(ulysses=2)),
        Group("shapes-wan", ParallelConfig(ulysses=2, ring=2)),
    )
}


@dataclass(frozen=True)
class RankWorkload(Workload):
    """Clips for one group.

    Args:
        group: that renders them.
        notes: the folder that its ranks write to.
    """

    group: Group = GROUPS[2]
    notes: Path = Path()

    @classmethod
    def make(cls, num_clips: int, group: Group, notes: Path) -> "RankWorkload":
        return cls(num_clips, NUM_STEPS, family="ranks", group=group, notes=notes)

    @property
    def model(self) -> str:
        return self.group.model

    @property
    def told(self) -> str:
        return str(self.notes)

    def rows(self) -> Iterator[dict[str, object]]:
        """The seed of each is its number."""
        for seed in range(self.num_clips):
            yield {
                "name": f"clip-{seed:05}",
                "prompt": "a red circle moving right",
                "negative_prompt": "blue",
                "seed": seed,
                "num_inference_steps": self.num_steps,
                "parallel": asdict(self.group.parallel),
            }
