"""Guidance in the text cross-attentions of HunyuanDiT.

It puts two texts behind one another, fills their padding by what it has learned for each position,
and pools the second into the embedding of time: that of the prompt. So the negative prompt is put
behind the prompt's text in the blocks.

Shapes: B batch, L image tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import HunyuanDiT2DModel
from diffusers.models.attention_processor import (
    Attention,
    FusedHunyuanAttnProcessor2_0,
    HunyuanAttnProcessor2_0,
)
from diffusers.models.embeddings import apply_rotary_emb

from nag.adapters.adapter import Adapter
from nag.adapters.cross_attention import NagAttnProcessor, NagFusedAttnProcessor
from nag.attention.block_text.hook import BlockTextPlan
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText

TEXTS = (
    TextInput("encoder_hidden_states", "text_embedding_mask"),
    TextInput("encoder_hidden_states_t5", "text_embedding_mask_t5", part="second_embeds"),
)


class NagHunyuanAttnProcessor(NagAttnProcessor):
    """Replaces `HunyuanAttnProcessor2_0` in a cross-attention, which rotates its queries."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb, image_rotary_emb
            )
        query_BLHK = self._query(attn, hidden_states)
        if image_rotary_emb is not None:
            rotated: Any = apply_rotary_emb(query_BLHK, image_rotary_emb, sequence_dim=1)
            query_BLHK = rotated
        output_BLD = self._guide(attn, query_BLHK, encoder_hidden_states, attention_mask)
        return attn.to_out[1](attn.to_out[0](output_BLD))


class NagFusedHunyuanAttnProcessor(NagHunyuanAttnProcessor, NagFusedAttnProcessor):
    """Replaces `FusedHunyuanAttnProcessor2_0`, which a model has after `fuse_qkv_projections`."""


def _is_text_attention(name: str, module: Any) -> bool:
    return isinstance(module, Attention) and name.endswith(".attn2")


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    (embeds, _, mask, _), (second_embeds, _, second_mask, _) = encoded
    return NegativeText(embeds, mask, second_embeds=second_embeds, second_mask=second_mask)


ADAPTER = Adapter(
    models=(HunyuanDiT2DModel,),
    processors={
        HunyuanAttnProcessor2_0: NagHunyuanAttnProcessor,
        FusedHunyuanAttnProcessor2_0: NagFusedHunyuanAttnProcessor,
    },
    is_text_attention=_is_text_attention,
    texts=TEXTS,
    # The lengths that the pipeline's call gives.
    encodings=(
        {"text_encoder_index": 0, "max_sequence_length": 77},
        {"text_encoder_index": 1, "max_sequence_length": 256},
    ),
    negative_text=_negative_text,
    block_text=BlockTextPlan("blocks", has_one_length=True),
)
