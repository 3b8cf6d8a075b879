"""The clips of a benchmark: settings, tasks, model and number of steps. Pure.

A block is all settings on the same tasks with one model and one number of steps. Clips are paired
within a block. They are ordered task by task, with all settings of a task one after the other, so
that their costs are measured under the same conditions and an interrupted run leaves whole pairs.
Attributes and cases alternate.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path

from jobs.bench.design.options import REPORT
from jobs.whole_files import write_text_for, writing_for
from pipelines.shapes.evaluation.negation import Case, NegationTask, Series, draw_tasks

PLAIN = "none"  # the method to which all others are compared


@dataclass(frozen=True)
class Setting:
    """A guidance method with its parameters.

    Args:
        name: the label in tables and plots.
        fields: the fields of a manifest's row, including `method`. Other fields come from the
            model's YAML.
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
        is_main: True for the main table, False for a point of a curve over the steps.
    """

    model: str
    num_steps: int
    is_main: bool
    settings: tuple[Setting, ...]
    tasks: tuple[NegationTask, ...]


@dataclass(frozen=True)
class PlannedClip:
    """One clip to render: a task with a setting, in a block."""

    block: Block
    setting: Setting
    task: NegationTask

    @property
    def name(self) -> str:
        """Return a name in which only characters allowed in a clip's name occur."""
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
        """Return the clip's row of the manifest."""
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
    """Return the first tasks of each attribute and case, alternating."""
    sequences = [
        draw_tasks(attribute, case, num_tasks, series) for attribute in attributes for case in cases
    ]
    return tuple(task for task in chain.from_iterable(zip_longest(*sequences)) if task is not None)


def planned_clips(blocks: tuple[Block, ...]) -> Iterator[PlannedClip]:
    """Yield all clips in the order in which they are rendered."""
    for block in blocks:
        for task in block.tasks:
            for setting in block.settings:
                yield PlannedClip(block, setting, task)


def write_design(blocks: tuple[Block, ...], manifest: Path, design: Path) -> None:
    """Write the manifest (JSONL) and the design: the setting and task of each clip.

    Raises:
        UnwritableError: the folder of the report cannot be written.
    """
    with writing_for(REPORT, manifest.parent):
        manifest.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(json.dumps(clip.row) + "\n" for clip in planned_clips(blocks))
    write_text_for(REPORT, manifest, rows)
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
    write_text_for(REPORT, design, json.dumps(clips, indent=1) + "\n")


def num_model_calls(clip: PlannedClip) -> int:
    """Return the number of transformer passes: classifier-free guidance takes two a step."""
    return clip.block.num_steps * (2 if clip.setting.method in ("cfg", "cfg+nag") else 1)
