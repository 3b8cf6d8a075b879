"""Guidance in the text cross-attentions of UNets: Stable Diffusion, Kolors, AnimateDiff.

The attentions of AnimateDiff's motion modules, and those of a ControlNet, attend to no text of the
UNet and stay unguided. So does the pooled text of Stable Diffusion XL.
"""

from typing import Any

from diffusers import UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.cross_attention import PROCESSORS, is_text_attention
from nag.adapters.image_prompt import NagIPAdapterAttnProcessor
from nag.params import NagParams

# The ways in which a UNet takes its text so that a token stays a token.
TOKEN_PROJECTIONS = (None, "text_proj", "ip_image_proj")
POOLED_TEXTS = ("text", "text_image", "image_hint")


def _is_text_attention(name: str, module: Any) -> bool:
    # In the upscaler's UNet, the first attention of a block attends to the text too.
    return name.endswith((".attn1", ".attn2")) and is_text_attention(name, module)


def _refusal(unet: Any) -> str | None:
    projection = unet.config.encoder_hid_dim_type
    if projection not in TOKEN_PROJECTIONS:
        return f"its UNet mixes the text with images (encoder_hid_dim_type {projection!r})"
    pooled = getattr(unet.config, "addition_embed_type", None)
    if pooled in POOLED_TEXTS:
        return f"its UNet pools the text of its cross-attentions (addition_embed_type {pooled!r})"
    return None


ADAPTER = Adapter(
    models=(UNet2DConditionModel, UNetMotionModel),
    processors={**PROCESSORS, IPAdapterAttnProcessor2_0: NagIPAdapterAttnProcessor},
    is_text_attention=_is_text_attention,
    defaults=NagParams(nag_scale=3.0, nag_alpha=0.5),  # the author's, for Stable Diffusion XL
    refusal=_refusal,
)
