"""The text in the arguments of a model's call, and the negative prompt behind it.

A model takes its text as one tensor, at times with a dimension of 1 more, or with the tokens of an
image beside it. Some models take the tokens' mask or positions too.

Shapes: B batch, L text tokens, D text channels.
"""

from dataclasses import replace
from typing import Any

import torch

from nag.attention.denoising_calls import GuidedRows
from nag.attention.text.layout import GuidedSpan, TextLayout
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_concat import TextConcat
from nag.errors import NagTextError

FILLER_WITHOUT_MASK = (
    "the negative prompt has an attention mask but the prompt has none, so the call cannot leave "
    "filler out: cut NegativeText's embeds to the words, and leave attention_mask out"
)


def guided_span(rows: GuidedRows, num_rows: int) -> GuidedSpan:
    """Return the guided rows of a call that guides some: `rows` is not "none"."""
    if rows == "second half":
        return GuidedSpan(num_rows // 2, num_rows, num_rows)
    if rows == "first half":
        return GuidedSpan(0, num_rows // 2, num_rows)
    if rows == "first third":
        return GuidedSpan(0, num_rows // 3, num_rows)
    if rows == "middle third":
        return GuidedSpan(num_rows // 3, 2 * num_rows // 3, num_rows)
    if rows == "last third":
        return GuidedSpan(2 * num_rows // 3, num_rows, num_rows)
    return GuidedSpan(0, num_rows, num_rows)


def text_of(argument: Any) -> torch.Tensor:
    """Return the text (B, L, D) of an argument: (B, L, D), (B, 1, L, D), or a tuple of it."""
    text = argument[0] if isinstance(argument, tuple) else argument
    return text.squeeze(1) if text.ndim == 4 else text


def append_text(
    arguments: dict[str, Any], concat: TextConcat, negative: NegativeText, guided: GuidedSpan
) -> None:
    """Put the negative prompt behind one text of a call, and note where it begins.

    Raises:
        NagTextError: the negative prompt does not fit the text.
    """
    text, argument = concat.text, arguments[concat.text.embeds]
    text_BLD, mask_BL = text_of(argument), arguments.get(text.mask)
    negative = negative.fit(text_BLD, guided)
    if text.num_shared_tokens:
        negative = _with_shared_tokens(negative, text_BLD, mask_BL, text.num_shared_tokens)
    concat.negative_mask = negative.token_mask()
    if mask_BL is None:
        negative = negative.without_idle_mask()
        if text.drops_whole_mask and negative.attention_mask is not None:
            mask_BL = text_BLD.new_ones(text_BLD.shape[:2], dtype=torch.bool)
    if mask_BL is not None:
        arguments[text.mask] = negative.append_mask(mask_BL)
    elif negative.attention_mask is not None:
        raise NagTextError(FILLER_WITHOUT_MASK)
    length = negative.embeds.shape[1]
    if text.max_tokens is not None and text_BLD.shape[1] + length > text.max_tokens:
        raise NagTextError(
            f"the prompt has {text_BLD.shape[1]} tokens and the negative prompt has {length}, and "
            f"the model has positions for {text.max_tokens} of both: give the call and guide() a "
            "smaller max_sequence_length"
        )
    if text.positions is not None:
        positions = arguments[text.positions]
        arguments[text.positions] = torch.cat([positions, torch.arange(length).to(positions)])
    concat.layout = TextLayout(text_BLD.shape[1], length, guided)
    arguments[text.embeds] = _replaced(argument, torch.cat([text_BLD, negative.embeds], dim=1))


def _with_shared_tokens(
    negative: NegativeText, text_BLD: torch.Tensor, mask_BL: torch.Tensor | None, count: int
) -> NegativeText:
    """Return the negative prompt with the last tokens of the prompt behind it."""
    embeds, mask = (
        torch.cat([negative.embeds, text_BLD[:, -count:]], dim=1),
        negative.attention_mask,
    )
    if mask is not None:
        of_shared = mask.new_ones((len(mask), count)) if mask_BL is None else mask_BL[:, -count:]
        mask = torch.cat([mask, of_shared.to(mask)], dim=1)
    return replace(negative, embeds=embeds, attention_mask=mask)


def _replaced(argument: Any, text_BLD: torch.Tensor) -> Any:
    """Return an argument with another text in the place of its own."""
    if isinstance(argument, tuple):
        return (_replaced(argument[0], text_BLD), *argument[1:])
    return text_BLD.unsqueeze(1) if argument.ndim == 4 else text_BLD
