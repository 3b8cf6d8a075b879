"""What a benchmark renders: which settings, on which tasks, with which model and steps. Pure.

A block is all settings on the very same tasks with one model and one number of steps: the unit in which clips are
paired. Its clips are ordered task by task, all settings of a task one after the other, so that their costs are taken
under the same conditions and an interrupted run leaves whole pairs. Attributes and cases take turns.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

from pipelines.shapes.evaluation.negation import Case, NegationTask, Series, draw_tasks

PLAIN = "none"  # the method that all others are compared to


@dataclass(frozen=True)
class Setting:
    """One way to guide.

    Args:
        name: for people.
        fields: of a manifest's row, `method` among them; what is missing comes from the model's YAML.
    """

    name: str
    fields: tuple[tuple[str, str | float], ...]

    @property
    def method(self) -> str:
        return str(dict(self.fields)["method"])


@dataclass(frozen=True)
class Block:
    """Settings that are compared with each other.

    Args:
        is_main: of the main table, and not only a point of a curve.
    """

    model: str
    num_steps: int
    is_main: bool
    settings: tuple[Setting, ...]
    tasks: tuple[NegationTask, ...]


@dataclass(frozen=True)
class PlannedClip:
    """One clip that is to be, and what it is for."""

    block: Block
    setting: Setting
    task: NegationTask

    @property
    def name(self) -> str:
        """Without what a clip's name may not hold."""
        task = self.task
        words = (
            self.block.model,
            f"{self.block.num_steps}-steps",
            self.setting.name,
            task.attribute,
            task.case,
        )
        return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join((*words, f"{task.index:04d}")))

    @property
    def row(self) -> dict[str, str | float]:
        """Its row of a manifest."""
        task = self.task
        return {
            "name": self.name,
            "model": self.block.model,
            "prompt": task.prompt,
            "negative_prompt": "" if self.setting.method == PLAIN else task.negative_prompt,
            "seed": task.seed,
            "num_inference_steps": self.block.num_steps,
            **dict(self.setting.fields),
        }


def interleaved_tasks(
    attributes: tuple[str, ...], cases: tuple[Case, ...], num_tasks: int, series: Series = "measure"
) -> tuple[NegationTask, ...]:
    """The first tasks of each attribute and case, taking turns."""
    sequences = [
        draw_tasks(attribute, case, num_tasks, series) for attribute in attributes for case in cases
    ]
    return tuple(task for task in chain.from_iterable(zip_longest(*sequences)) if task is not None)


def planned_clips(blocks: tuple[Block, ...]) -> Iterator[PlannedClip]:
    """All clips, in the order in which they are rendered."""
    for block in blocks:
        for task in block.tasks:
            for setting in block.settings:
                yield PlannedClip(block, setting, task)


def write_design(blocks: tuple[Block, ...], manifest: Path, design: Path) -> None:
    """Writes the manifest (JSONL, a row a clip), and, for people and other programs, what each clip is for."""
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text("".join(json.dumps(clip.row) + "\n" for clip in planned_clips(blocks)))
    clips = [
        {
            "name": clip.name,
            "model": clip.block.model,
            "num_inference_steps": clip.block.num_steps,
            "is_main": clip.block.is_main,
            "setting": clip.setting.name,
            "task": asdict(clip.task) | {"named": dict(clip.task.named)},
        }
        for clip in planned_clips(blocks)
    ]
    design.write_text(json.dumps(clips, indent=1) + "\n")


def num_model_calls(clip: PlannedClip) -> int:
    """How often the transformer runs: classifier-free guidance runs it twice a step."""
    return clip.block.num_steps * (2 if clip.setting.method in ("cfg", "cfg+nag") else 1)
