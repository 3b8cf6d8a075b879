"""Guidance in the text cross-attention of `WanTransformer3DModel`.

Shapes: B batch, L video tokens, T text tokens, I image tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn

from nag.attention.text_concat import Packing
from nag.errors import NagTextError


class NagWanAttnProcessor:
    """Stands in for diffusers' `WanAttnProcessor` in a cross-attention.

    Differs from it in two places: the text may be packed, and the image tokens of image-to-video are found by
    subtracting the text's own length (the stock processor takes the text to be 512 tokens long).
    """

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
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        if attention_mask is not None or rotary_emb is not None:
            raise NotImplementedError(
                "Wan's text cross-attention has neither mask nor rotary embedding"
            )
        layout = self.packing.layout
        image_length = encoder_hidden_states.shape[1] - layout.length
        if not layout.length or image_length < 0 or (image_length and attn.add_k_proj is None):
            raise NagTextError(
                f"the text must reach the transformer by a call of it and stay whole: {layout.length} tokens, "
                f"not {encoder_hidden_states.shape[1]}"
            )
        query_BLHK = _split_heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        key_BTHK, value_BTHK = self._text_key_value(attn, encoder_hidden_states[:, image_length:])
        output_BLD = self.packing.guide(self._attend, query_BLHK, key_BTHK, value_BTHK)
        if image_length:  # image-to-video: added afterwards, unguided
            key_BIHK, value_BIHK = self._image_key_value(
                attn, encoder_hidden_states[:, :image_length]
            )
            output_BLD = output_BLD + self._attend(query_BLHK, key_BIHK, value_BIHK)
        return attn.to_out[1](attn.to_out[0](output_BLD))

    @staticmethod
    def _text_key_value(attn: Any, text_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if attn.fused_projections:
            key, value = attn.to_kv(text_BTD).chunk(2, dim=-1)
        else:
            key, value = attn.to_k(text_BTD), attn.to_v(text_BTD)
        return _split_heads(attn, attn.norm_k(key)), _split_heads(attn, value)

    @staticmethod
    def _image_key_value(attn: Any, image_BID: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if attn.fused_projections:
            key, value = attn.to_added_kv(image_BID).chunk(2, dim=-1)
        else:
            key, value = attn.add_k_proj(image_BID), attn.add_v_proj(image_BID)
        return _split_heads(attn, attn.norm_added_k(key)), _split_heads(attn, value)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        # the text is whole on every rank of a parallel model, so cross-attention needs no communication
        output = dispatch_attention_fn(
            query, key, value, attn_mask=bias, backend=self._attention_backend, parallel_config=None
        )
        return output.flatten(2, 3).type_as(query)


def _split_heads(attn: Any, projected: torch.Tensor) -> torch.Tensor:
    return projected.unflatten(2, (attn.heads, -1))
