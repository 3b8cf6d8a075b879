"""Negative prompts to learn with, and the members of the world that they leave.

Shape suffixes: B clips, N members.
"""

from collections.abc import Mapping

import torch

from pipelines.shapes.captions import phrase
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.world import ATTRIBUTES, ShapesClip

TELLING_SHARE = 0.75  # share of the open attributes whose shown value is avoided


def draw_negatives(
    posterior: Posterior,
    named: Mapping[str, torch.Tensor],
    plain_ends: list[ShapesClip],
    generator: torch.Generator,
) -> tuple[list[str], torch.Tensor]:
    """Draw a value to avoid for each caption.

    If the caption leaves the drawn attribute open, it is mostly the value that the clip would show
    without a negative prompt: another one changes little, and teaches little. If the caption names
    the attribute, it is another value, which changes nothing. So no pair of prompts asks for what
    it forbids: that has no right answer.

    Args:
        named: the class (B,) of each attribute; the class after the last leaves it open.
        plain_ends: the clips without a negative prompt.

    Returns:
        The negative prompts, and the members that show none of what they name, (B, N) bool.
    """
    words: list[str] = []
    avoided = {name: torch.empty(len(plain_ends), dtype=torch.long) for name in ATTRIBUTES}
    for row, end in enumerate(plain_ends):
        chosen = list(ATTRIBUTES)[_draw(len(ATTRIBUTES), generator)]
        values, class_named = ATTRIBUTES[chosen], int(named[chosen][row])
        options = [index for index in range(len(values)) if index != class_named]
        index = options[_draw(len(options), generator)]
        is_telling = torch.rand((), generator=generator) < TELLING_SHARE
        if class_named == len(values) and is_telling:
            index = values.index(getattr(end, chosen))
        words.append(phrase(chosen, values[index]))
        for name, classes_B in avoided.items():
            classes_B[row] = index if name == chosen else len(ATTRIBUTES[name])
    return words, ~posterior.allowed(avoided)


def _draw(num_options: int, generator: torch.Generator) -> int:
    return int(torch.randint(num_options, (), generator=generator))
