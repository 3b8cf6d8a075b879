"""Guidance in the text cross-attentions of LTX-Video.

Shapes: B batch, L video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx import LTXAttention, LTXVideoAttnProcessor

from nag.adapters.adapter import Adapter, embeds_and_mask
from nag.adapters.text_processor import NagTextProcessor, split_heads
from nag.attention.kept_projections import KeyValue
from nag.errors import UnsupportedCallError

NO_ROTARY = "LTX's text cross-attention takes no rotary embedding, got one"


class NagLTXVideoAttnProcessor(NagTextProcessor):
    """Replaces diffusers' `LTXVideoAttnProcessor` in a cross-attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        if image_rotary_emb is not None:
            raise UnsupportedCallError(NO_ROTARY)
        output_BLD = self._guide(attn, hidden_states, encoder_hidden_states, attention_mask)
        return attn.to_out[1](attn.to_out[0](output_BLD))

    def _guide(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the guided output, (B, L, D): heads merged, before the output projection."""
        batch_size, text_length, _ = encoder_hidden_states.shape
        if text_length != self.text_concat.layout.length:
            raise self._refuse_text(text_length)
        if attention_mask is not None:  # (B, 1, T), additive, to (B, H, 1, T)
            per_head = attn.prepare_attention_mask(attention_mask, text_length, batch_size)
            attention_mask = per_head.view(batch_size, attn.heads, -1, text_length)
        key_BTHK, value_BTHK = self._key_value(attn, encoder_hidden_states, hidden_states.shape[1])
        query_BLHK = split_heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        return self.text_concat.guide(
            self._attend, query_BLHK, key_BTHK, value_BTHK, attention_mask
        )

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTD = attn.norm_k(attn.to_k(text_BTD))
        return split_heads(attn, key_BTD), split_heads(attn, attn.to_v(text_BTD))


def _is_text_attention(name: str, module: Any) -> bool:
    return isinstance(module, LTXAttention) and name.endswith(".attn2")


ADAPTER = Adapter(
    models=(LTXVideoTransformer3DModel,),
    processors={LTXVideoAttnProcessor: NagLTXVideoAttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=embeds_and_mask,
)
