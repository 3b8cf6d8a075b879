"""The rows that a scenario renders, and the models that they name.

Clips are small and quick, since the farm is measured and not a model.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.catalog.files.sources import PACKAGED_CONFIGS

Family = Literal["stand-in", "shapes", "ranks"]
POISONED = "poison-"  # prefix of the names of poisoned rows
STAND_IN_SHAPE = {"num_frames": 9, "height": 32, "width": 32}


@dataclass(frozen=True)
class Workload:
    """The rows of a manifest.

    Args:
        num_clips: number of healthy rows.
        num_steps: denoise steps of each clip.
        step_s: seconds that a step of the stand-in waits.
        poison: first words of the prompts of further, poisoned rows, see `stand_in`; for `shapes`
            only "nan".
    """

    num_clips: int
    num_steps: int = 6
    step_s: float = 0.03
    poison: tuple[str, ...] = ()
    family: Family = "stand-in"

    @property
    def model(self) -> str:
        return {"stand-in": "stand-in", "shapes": "shapes-wan"}[self.family]

    @property
    def loader_argument(self) -> str:
        """Return the argument of the driver's model loader."""
        return str(self.step_s)

    @property
    def healthy(self) -> "Workload":
        """Return the same rows without poison, for the run without faults."""
        return Workload(self.num_clips, self.num_steps, self.step_s, (), self.family)

    def rows(self) -> Iterator[dict[str, object]]:
        """Yield the rows, with the poisoned ones spread evenly among the others."""
        size: dict[str, object] = {**STAND_IN_SHAPE} if self.family == "stand-in" else {}
        every = max(1, self.num_clips // (len(self.poison) + 1))
        left = list(enumerate(self.poison))
        for seed in range(self.num_clips):
            if left and seed and seed % every == 0:
                yield self._poisoned(*left.pop(0)) | size
            prompt = "a red circle moving right" if self.family == "shapes" else f"sunrise {seed}"
            yield {
                "name": f"clip-{seed:05}",
                "prompt": prompt,
                "seed": seed,
                "num_inference_steps": self.num_steps,
            } | size
        for index, word in left:
            yield self._poisoned(index, word) | size

    def _poisoned(self, index: int, word: str) -> dict[str, object]:
        prompt = (
            "a red circle moving right" if self.family == "shapes" else f"{word} of row {index}"
        )
        return {
            "name": f"{POISONED}{index:05}-{word}",
            "prompt": prompt,
            "seed": 1000 + index,
            "num_inference_steps": self.num_steps,
        }

    def write(self, path: Path) -> Path:
        path.write_text("".join(json.dumps(row) + "\n" for row in self.rows()))
        return path


def write_models(folder: Path) -> Path:
    """Write a folder with the stand-in's YAML, a copy of that of shapes-wan.

    The plan finds the weights that it names; no worker reads them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "stand-in.yaml").write_text(
        (PACKAGED_CONFIGS / "models" / "shapes-wan.yaml").read_text()
    )
    return folder
