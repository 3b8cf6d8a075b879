"""Guidance in the text cross-attentions of Lumina-Next.

Its text is pooled into the embedding of time: that of the prompt.

Shapes: B batch, L image tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import LuminaNextDiT2DModel
from diffusers.models.attention_processor import Attention, LuminaAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb

from nag.adapters.adapter import Adapter, embeds_and_mask
from nag.adapters.cross_attention import NagAttnProcessor, repeat_heads
from nag.attention.block_text.pool import TextPool
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput
from nag.errors import UnsupportedCallError

TEXT = TextInput("encoder_hidden_states", "encoder_mask")
POOL = TextPool("time_caption_embed", "caption_feat", "caption_mask")


class NagLuminaAttnProcessor(NagAttnProcessor):
    """Replaces `LuminaAttnProcessor2_0` in a cross-attention.

    Its keys and values may have fewer heads than its queries. Its output has the heads apart, since
    the block has a gate for each; guidance is over all heads together, before the gates.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        query_rotary_emb: torch.Tensor | None = None,
        key_rotary_emb: torch.Tensor | None = None,
        base_sequence_length: int | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                query_rotary_emb,
                key_rotary_emb,
                base_sequence_length,
            )
        if key_rotary_emb is not None or query_rotary_emb is None or attention_mask is None:
            raise UnsupportedCallError(
                "Lumina's text cross-attention takes a mask and rotates its queries alone"
            )
        query_BLD = attn.to_q(hidden_states)
        query_BLD = query_BLD if attn.norm_q is None else attn.norm_q(query_BLD)
        query_BLHK = query_BLD.unflatten(2, (attn.heads, -1))
        rotated: Any = apply_rotary_emb(query_BLHK, query_rotary_emb, use_real=False)
        query_BLHK = rotated.to(query_BLD.dtype)
        key_BTHK, value_BTHK = self._key_value(attn, encoder_hidden_states, hidden_states.shape[1])
        bias = attention_mask.bool()[:, None, None, :]
        output_BLD = self.text_concat.guide(self._attend, query_BLHK, key_BTHK, value_BTHK, bias)
        return output_BLD.unflatten(2, (attn.heads, -1))

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTD = attn.to_k(text_BTD)
        key_BTD = key_BTD if attn.norm_k is None else attn.norm_k(key_BTD)
        head_dim = attn.inner_dim // attn.heads
        key_BTHK, value_BTHK = (
            repeat_heads(one, attn.heads, head_dim) for one in (key_BTD, attn.to_v(text_BTD))
        )
        return key_BTHK, value_BTHK


def _is_text_attention(name: str, module: Any) -> bool:
    return isinstance(module, Attention) and name.endswith(".attn2")


def _pools(_transformer: Any) -> tuple[TextPool, ...]:
    return (POOL,)


ADAPTER = Adapter(
    models=(LuminaNextDiT2DModel,),
    processors={LuminaAttnProcessor2_0: NagLuminaAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=embeds_and_mask,
    pads_text=False,
    pools=_pools,
)
