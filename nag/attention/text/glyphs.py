"""The letters that a prompt quotes, which some models take as a second text.

Shapes: B rows of a call, G of them guided, T tokens of the letters, D channels.
"""

from typing import Any

import torch

from nag.attention.text.layout import GuidedSpan, TextInput
from nag.attention.text.negative_text import NegativeText
from nag.errors import NagTextError


def append_glyphs(
    arguments: dict[str, Any], glyphs: TextInput, negative: NegativeText, guided: GuidedSpan
) -> None:
    """Put the letters of the negative prompt below those of the prompt.

    Args:
        arguments: arguments of the model's call; changed in place.
        glyphs: the arguments that hold the letters.
        negative: negative prompt with a row for each guided row; without letters it quotes nothing,
            and its lane has none.
        guided: guided rows of the call.

    Raises:
        NagTextError: the negative prompt's letters have another shape than the prompt's, or the
            prompt's have no mask.
    """
    embeds_BTD, mask_BT = arguments[glyphs.embeds], arguments.get(glyphs.mask)
    if mask_BT is None:
        raise NagTextError(f"the model takes {glyphs.embeds} with {glyphs.mask}, which is missing")
    embeds, mask = negative.glyph_embeds, negative.glyph_mask
    if embeds is None or mask is None:
        num_guided = guided.stop - guided.start
        embeds = embeds_BTD.new_zeros((num_guided, *embeds_BTD.shape[1:]))
        mask = mask_BT.new_zeros((num_guided, mask_BT.shape[1]))
    if embeds.shape[1:] != embeds_BTD.shape[1:]:
        raise NagTextError(
            "the negative prompt's glyph_embeds must be (batch, "
            f"{embeds_BTD.shape[1]}, {embeds_BTD.shape[2]}) as the prompt's are, got "
            f"{tuple(embeds.shape)}"
        )
    arguments[glyphs.embeds] = torch.cat([embeds_BTD, embeds.to(embeds_BTD)])
    arguments[glyphs.mask] = torch.cat([mask_BT, mask.to(mask_BT)])
