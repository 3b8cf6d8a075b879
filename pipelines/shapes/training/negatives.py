"""Negative prompts to learn with, and the members of the world that they leave.

Shape suffixes: B clips, N members.
"""

from collections.abc import Mapping

import torch

from pipelines.shapes.captions import phrase
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.world import ATTRIBUTES


def draw_negatives(
    posterior: Posterior, named: Mapping[str, torch.Tensor], generator: torch.Generator
) -> tuple[list[str], torch.Tensor]:
    """Draw a value to avoid for each caption: any value of an attribute that it leaves open.

    If the drawn attribute is named, another value of it is avoided, which changes nothing. So no
    pair of prompts asks for what it forbids: that has no right answer.

    Args:
        named: the class (B,) of each attribute; the class after the last leaves it open.

    Returns:
        The negative prompts, and the members that show none of what they name, (B, N) bool.
    """
    num_clips = len(next(iter(named.values())))
    words: list[str] = []
    avoided = {name: torch.empty(num_clips, dtype=torch.long) for name in ATTRIBUTES}
    for row in range(num_clips):
        chosen = list(ATTRIBUTES)[_draw(len(ATTRIBUTES), generator)]
        values = ATTRIBUTES[chosen]
        options = [index for index in range(len(values)) if index != int(named[chosen][row])]
        index = options[_draw(len(options), generator)]
        words.append(phrase(chosen, values[index]))
        for name, classes_B in avoided.items():
            classes_B[row] = index if name == chosen else len(ATTRIBUTES[name])
    return words, ~posterior.allowed(avoided)


def _draw(num_options: int, generator: torch.Generator) -> int:
    return int(torch.randint(num_options, (), generator=generator))
