"""The negative prompt in the fields that a modular pipeline hands to its guider.

Most fields have the name of a model's argument. One with two values holds the prompt's and the
negative prompt's; one with a single value serves both.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from nag.attention.text.negative_text import NegativeText, fill_up
from nag.errors import NagTextError, UnsupportedPipelineError
from nag.installation.coverage import find_models

NEGATIVE = 1  # its position in a pair
Fields = Mapping[str, Any]
# The arguments that hold what a field of another name has, in Stable Diffusion XL and 3.
ARGUMENTS = {"prompt_embeds": "encoder_hidden_states", "text_embeds": "pooled_projections"}
# Pairs without tokens of a text, or that guidance takes from the prompt: pooled text where the
# model makes no use of the negative prompt's, sizes, images, their tokens in a text (for calls of
# Qwen-Image 2.1 with images, which are refused), and positions.
NOT_READ = frozenset(
    ("hidden_states", "pooled_projections", "time_ids", "image_embeds", "img_mask", "txt_ids")
)
REMEDY = (
    "keep the pipeline's own guider, and call it inside nag.guide(pipeline, "
    "NegativeText(embeds, attention_mask))"
)


def check_fields(fields: Fields) -> None:
    """Check that each field has one value, or one for each of the two prompts.

    Raises:
        UnsupportedPipelineError: one has more.
    """
    longer = [name for name, one in fields.items() if isinstance(one, tuple) and len(one) != 2]
    if longer:
        raise UnsupportedPipelineError(
            f"NagGuider makes one pass of two texts, and the pipeline has more passes in "
            f"{', '.join(longer)}: {REMEDY}"
        )


def negative_of(denoiser: Any, fields: Fields) -> NegativeText:
    """Return the negative prompt of a call, read by the names that its model's family gives.

    Args:
        denoiser: transformer or UNet of the call.
        fields: values that the guider got, by name.

    Raises:
        NagTextError: the call has no negative prompt.
        UnsupportedPipelineError: the model cannot be guided, or its text lies in other fields, or
            a field has a value of the negative prompt's that would not be read.
    """
    (found,) = find_models(SimpleNamespace(transformer=denoiser))
    text, lanes = found.adapter.texts[0], found.adapter.lanes
    glyphs = lanes.glyphs if lanes is not None else None
    values = {ARGUMENTS.get(name, name): one for name, one in fields.items()}
    given = {
        name: one[NEGATIVE]
        for name, one in values.items()
        if isinstance(one, tuple) and one[NEGATIVE] is not None
    }
    read = {one for part in (text, glyphs) if part is not None for one in (part.embeds, part.mask)}
    unread = sorted(given.keys() - read - NOT_READ)
    if unread or text.embeds not in values or len(found.adapter.texts) > 1:
        raise UnsupportedPipelineError(
            f"NagGuider cannot read the negative prompt of a {type(found.model).__name__}: "
            f"expected the fields {', '.join(sorted(filter(None, read)))}, got "
            f"{', '.join(sorted(fields))}; {REMEDY}"
        )
    embeds = given.get(text.embeds)
    if embeds is None:
        raise NagTextError(
            "NagGuider needs the embeddings of a negative prompt: give the pipeline a "
            "negative_prompt, or leave the guider out"
        )
    if isinstance(embeds, list):
        return fill_up(embeds)
    pooled = lanes.pooled if lanes is not None else None
    return NegativeText(
        embeds,
        given.get(text.mask),
        pooled=given.get(pooled) if pooled else None,
        glyph_embeds=given.get(glyphs.embeds) if glyphs else None,
        glyph_mask=given.get(glyphs.mask) if glyphs else None,
    )
