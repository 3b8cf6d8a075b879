"""Guidance in the text cross-attentions of AudioLDM 2.

Its UNet has three attentions in each place: one to the sound itself, one to tokens that a language
model makes of the prompt, and one to the prompt's own tokens, which have a mask.
"""

from typing import Any

from diffusers import AudioLDM2UNet2DConditionModel

from nag.adapters.adapter import Adapter
from nag.adapters.cross_attention import PROCESSORS, is_text_attention
from nag.attention.text.layout import VIDEO_TEXT, TextInput
from nag.attention.text.negative_text import NegativeText

PROMPT = TextInput("encoder_hidden_states_1", "encoder_attention_mask_1", part="second_embeds")
NUM_ATTENTIONS = 3  # in each place, as all published models have


def _text_of(name: str) -> TextInput:
    """Return the text of an attention: the model goes by the number of its block."""
    number = int(name.partition(".attentions.")[2].partition(".")[0])
    return PROMPT if number % NUM_ATTENTIONS == 2 else VIDEO_TEXT


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    embeds, mask, generated = encoded
    return NegativeText(generated, second_embeds=embeds, second_mask=mask)


def _refusal(unet: Any) -> str | None:
    widths: Any = unet.config.cross_attention_dim
    several = isinstance(widths, list | tuple) and all(
        isinstance(one, list | tuple) and len(one) == NUM_ATTENTIONS for one in widths
    )
    if several:
        return None
    return (
        f"its UNet must have {NUM_ATTENTIONS} attentions in each place (cross_attention_dim such "
        f"as [[None, 768, 1024], ...]), got {widths}"
    )


ADAPTER = Adapter(
    models=(AudioLDM2UNet2DConditionModel,),
    processors=PROCESSORS,
    is_text_attention=is_text_attention,
    texts=(VIDEO_TEXT, PROMPT),
    text_of=_text_of,
    negative_text=_negative_text,
    pads_text=False,
    refusal=_refusal,
)
