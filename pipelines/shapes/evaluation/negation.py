"""The tasks of the benchmark of negative prompts.

A task is a prompt, a negated value and clips that answer right. Two cases. *Open*: the prompt
leaves the negated attribute open, the usual use of a negative prompt. *Hard*: the prompt names the
negated value itself ("a red circle", negative "red") beside at least one other attribute.

The tasks of an attribute and a case are a fixed sequence: fewer tasks are the beginning of it.
There are three series, so that strengths are not chosen on the tasks that measure them, and so that
models are also measured on tasks that decided nothing. Prompts of the series "held-out" are lists
("black background, red") instead of sentences.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import torch

from pipelines.shapes.captions import NAMED_SHARE, phrase, sentence, terse_caption
from pipelines.shapes.world import ATTRIBUTES, MOTIONS, ShapesClip, sample_clip

Case = Literal["open", "hard"]
Series = Literal["measure", "choose", "held-out"]
CASES: tuple[Case, ...] = ("open", "hard")


@dataclass(frozen=True)
class NegationTask:
    """One prompt, one negated value and one seed, the same for all compared methods.

    Args:
        index: place in the sequence of its attribute and case.
        named: attributes that the prompt names, with their values.
    """

    attribute: str
    case: Case
    index: int
    value: str
    named: tuple[tuple[str, str], ...]
    prompt: str
    seed: int
    series: Series = "measure"

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.series, self.attribute, self.case, self.index

    @property
    def negative_prompt(self) -> str:
        return phrase(self.attribute, self.value)

    @property
    def required(self) -> dict[str, str]:
        """Attributes of a right answer: all that the prompt names, except the negated one."""
        return {attribute: value for attribute, value in self.named if attribute != self.attribute}

    @property
    def open_attributes(self) -> tuple[str, ...]:
        """Attributes that neither prompt names."""
        return tuple(
            name for name in ATTRIBUTES if name != self.attribute and name not in dict(self.named)
        )

    @property
    def direction(self) -> tuple[int, int] | None:
        """Direction in which a right answer moves; None if it may stand still."""
        motion = self.required.get("motion", "still")
        return None if motion == "still" else MOTIONS[motion]


def draw_named(generator: torch.Generator, left_open: str | None = None) -> dict[str, str]:
    """Draw a random part of the attributes of a random clip, perhaps none, never `left_open`."""
    clip = sample_clip(generator)
    return {
        attribute: getattr(clip, attribute)
        for attribute in ATTRIBUTES
        if attribute != left_open and torch.rand((), generator=generator) < NAMED_SHARE
    }


def draw_tasks(
    attribute: str,
    case: Case,
    num_tasks: int,
    series: Series = "measure",
    unnamed: tuple[str, ...] = (),
) -> tuple[NegationTask, ...]:
    """Return the first tasks of an attribute and a case; each value is negated equally often.

    Args:
        unnamed: attributes that no prompt names, such as the motion for images.
    """
    return tuple(islice(_tasks(attribute, case, series, unnamed), num_tasks))


def _tasks(
    attribute: str, case: Case, series: Series, unnamed: tuple[str, ...]
) -> Iterator[NegationTask]:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{series} {attribute} {case}".encode()))
    values = ATTRIBUTES[attribute]
    index = 0
    while True:
        drawn = draw_named(generator, left_open=attribute)
        named = {name: value for name, value in drawn.items() if name not in unnamed}
        if not named:
            continue
        value = values[index % len(values)]
        if case == "hard":
            named[attribute] = value
        words = terse_caption if series == "held-out" else sentence
        prompt = words(named, generator)
        seed = int(torch.randint(2**31, (), generator=generator))
        yield NegationTask(
            attribute, case, index, value, tuple(named.items()), prompt, seed, series
        )
        index += 1


def draw_right_answer(task: NegationTask, replicate: int) -> ShapesClip:
    """Draw a true clip that shows what the task requires and not what it negates."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{task.key} {replicate}".encode()))
    others = [value for value in ATTRIBUTES[task.attribute] if value != task.value]
    chosen = others[int(torch.randint(len(others), (), generator=generator))]
    shown = {**task.required, task.attribute: chosen}
    return sample_clip(generator, anywhere=False, **shown)
