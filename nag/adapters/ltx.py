"""Guidance in the text cross-attention of `LTXVideoTransformer3DModel`.

Shapes: B batch, L video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from nag.attention.text_concat import Packing
from nag.errors import NagTextError


class NagLTXVideoAttnProcessor:
    """Stands in for diffusers' `LTXVideoAttnProcessor` in a cross-attention; the text and its mask may be packed."""

    _attention_backend: Any = (
        None  # class attributes: diffusers sets them on whatever processor it finds
    )
    _parallel_config: Any = None

    def __init__(self, packing: Packing) -> None:
        self.packing = packing

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        if image_rotary_emb is not None:
            raise NotImplementedError("LTX's text cross-attention has no rotary embedding")
        batch_size, text_length, _ = encoder_hidden_states.shape
        layout = self.packing.layout
        if text_length != layout.length:  # a parallel plan has cut the text, say
            raise NagTextError(
                f"the text must reach the transformer by a call of it and stay whole: {layout.length} tokens, "
                f"not {text_length}"
            )
        if attention_mask is not None:  # (B, 1, T), additive, to (B, H, 1, T)
            per_head = attn.prepare_attention_mask(attention_mask, text_length, batch_size)
            attention_mask = per_head.view(batch_size, attn.heads, -1, text_length)
        query_BLHK = attn.norm_q(attn.to_q(hidden_states)).unflatten(2, (attn.heads, -1))
        key_BTHK = attn.norm_k(attn.to_k(encoder_hidden_states)).unflatten(2, (attn.heads, -1))
        value_BTHK = attn.to_v(encoder_hidden_states).unflatten(2, (attn.heads, -1))
        output_BLD = self.packing.guide(
            self._attend, query_BLHK, key_BTHK, value_BTHK, attention_mask
        )
        return attn.to_out[1](attn.to_out[0](output_BLD))

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        output = dispatch_attention_fn(
            query,
            key,
            value,
            attn_mask=bias,
            backend=self._attention_backend,
            parallel_config=None,  # the text is whole on every rank of a parallel model
        )
        return output.flatten(2, 3).to(query.dtype)
