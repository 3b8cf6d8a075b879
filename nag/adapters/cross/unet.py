"""Guidance in the text attentions of UNets: Stable Diffusion, Kolors, AnimateDiff, DeepFloyd.

DeepFloyd's attend to text and image together, and its UNet pools the text: that of the prompt. The
attentions of AnimateDiff's motion modules, and those of a ControlNet, attend to no text of the
UNet and stay unguided. So does the pooled text of Stable Diffusion XL.
"""

from typing import Any

import torch
from diffusers import DreamLiteUNetModel, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.unets.unet_dreamlite import DreamLiteAttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.beside_image import added_text
from nag.adapters.cross.image_prompt import NagIPAdapterAttnProcessor
from nag.adapters.cross_attention import (
    PROCESSORS,
    NagAttnProcessor,
    is_text_attention,
    repeat_heads,
)
from nag.attention.block_text.pool import TextPool
from nag.attention.kept_projections import KeyValue
from nag.params import NagParams

# The ways in which a UNet takes its text so that a token stays a token.
TOKEN_PROJECTIONS = (None, "text_proj", "ip_image_proj")
OTHER_EMBEDDINGS = ("text_image", "image_hint")
POOL = TextPool("add_embedding", "hidden_states")


class NagDreamLiteAttnProcessor(NagAttnProcessor):
    """Replaces `DreamLiteAttnProcessor2_0`, whose keys and values have fewer heads."""

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        text_BTD = self._normed_text(attn, text_BTD)
        head_dim = attn.inner_dim // attn.heads
        key_BTD, value_BTD = attn.to_k(text_BTD), attn.to_v(text_BTD)
        if attn.norm_k is not None:
            key_BTD = attn.norm_k(key_BTD.unflatten(2, (-1, head_dim))).flatten(2)
        key_BTHK = repeat_heads(key_BTD, attn.heads, head_dim)
        return key_BTHK, repeat_heads(value_BTD, attn.heads, head_dim)


def _is_text_attention(name: str, module: Any) -> bool:
    if not is_text_attention(name, module):
        return False
    # In the upscaler's UNet, the first attention of a block attends to the text too.
    return name.endswith((".attn1", ".attn2")) or module.added_kv_proj_dim is not None


def _pools(unet: Any) -> tuple[TextPool, ...]:
    is_pooling = getattr(unet.config, "addition_embed_type", None) == "text"
    return (POOL,) if is_pooling else ()


def _refusal(unet: Any) -> str | None:
    projection = unet.config.encoder_hid_dim_type
    if projection not in TOKEN_PROJECTIONS:
        return f"its UNet mixes the text with images (encoder_hid_dim_type {projection!r})"
    embedding = getattr(unet.config, "addition_embed_type", None)
    if embedding in OTHER_EMBEDDINGS:
        return f"its UNet takes images beside the text (addition_embed_type {embedding!r})"
    return None


ADAPTER = Adapter(
    models=(UNet2DConditionModel, UNetMotionModel, DreamLiteUNetModel),
    processors={
        **PROCESSORS,
        **added_text.PROCESSORS,
        IPAdapterAttnProcessor2_0: NagIPAdapterAttnProcessor,
        DreamLiteAttnProcessor2_0: NagDreamLiteAttnProcessor,
    },
    is_text_attention=_is_text_attention,
    defaults=NagParams(nag_scale=3.0, nag_alpha=0.5),  # the author's, for Stable Diffusion XL
    refusal=_refusal,
    pools=_pools,
)
