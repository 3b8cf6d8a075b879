"""Guidance in the joint attentions of HunyuanImage and of its refiner.

The blocks are those of HunyuanVideo. The letters that a prompt quotes are a second text. The model
joins both texts of each row and puts the tokens that are text before those that fill it up; text
has no positions here, so each lane keeps its own order.
"""

from typing import Any

from diffusers import HunyuanImageTransformer2DModel
from diffusers.models.transformers.transformer_hunyuanimage import HunyuanImageAttnProcessor

from nag.adapters.adapter import Adapter
from nag.adapters.joint.hunyuan_video import (
    NagHunyuanVideoAttnProcessor,
    is_text_attention,
    parts,
)
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes_hook import LanePlan

GLYPHS = TextInput("encoder_hidden_states_2", "encoder_attention_mask_2")


def text_with_glyphs(_pipeline: Any, encoded: Any) -> NegativeText:
    """Return the negative prompt with its letters; the refiner takes none."""
    embeds, mask, *glyphs = encoded
    if not glyphs:
        return NegativeText(embeds, mask)
    return NegativeText(embeds, mask, glyph_embeds=glyphs[0], glyph_mask=glyphs[1])


def _num_letters(model: Any, arguments: dict[str, Any]) -> int:
    letters = arguments.get(GLYPHS.embeds)
    return 0 if model.context_embedder_2 is None or letters is None else letters.shape[1]


ADAPTER = Adapter(
    models=(HunyuanImageTransformer2DModel,),
    processors={HunyuanImageAttnProcessor: NagHunyuanVideoAttnProcessor},
    is_text_attention=is_text_attention,
    negative_text=text_with_glyphs,
    lanes=LanePlan(
        parts,
        repeated=("hidden_states", "timestep", "timestep_r", "guidance"),
        glyphs=GLYPHS,
        further=_num_letters,
    ),
)
