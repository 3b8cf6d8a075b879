"""Guidance in the text cross-attentions of Wan.

Shapes: B batch, L video tokens, T text tokens, I image tokens, D channels, H heads, K channels a
head.
"""

from typing import Any

import torch
from diffusers import WanTransformer3DModel, WanVACETransformer3DModel
from diffusers.models.transformers.transformer_wan import WanAttention, WanAttnProcessor

from nag.adapters.adapter import Adapter
from nag.adapters.text_processor import NagTextProcessor, split_heads
from nag.attention.kept_projections import KeyValue
from nag.errors import UnsupportedCallError


class NagWanAttnProcessor(NagTextProcessor):
    """Replaces diffusers' `WanAttnProcessor`, or a copy of it, in a cross-attention.

    While a clip is guided, it differs in two places. The text may hold both prompts. The image
    tokens of image-to-video are found by subtracting the text's real length. The stock processor
    assumes 512 tokens of text, so with another `max_sequence_length` it takes image tokens for
    text; an image-to-video clip without guidance is left to it, and stays as it was.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        if attention_mask is not None or rotary_emb is not None:
            raise UnsupportedCallError(
                "Wan's text cross-attention takes neither mask nor rotary embedding, got one"
            )
        if attn.add_k_proj is not None and not self.text_concat.is_guiding:
            return self.stock(attn, hidden_states, encoder_hidden_states)
        layout = self.text_concat.layout
        image_length = encoder_hidden_states.shape[1] - layout.length
        if not layout.length or image_length < 0 or (image_length and attn.add_k_proj is None):
            raise self._refuse_text(encoder_hidden_states.shape[1])
        query_BLHK = split_heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        key_BTHK, value_BTHK = self._key_value(
            attn, encoder_hidden_states[:, image_length:], hidden_states.shape[1]
        )
        output_BLD = self.text_concat.guide(self._attend, query_BLHK, key_BTHK, value_BTHK)
        if image_length:  # image-to-video: added after guidance, unguided
            key_BIHK, value_BIHK = _image_key_value(attn, encoder_hidden_states[:, :image_length])
            output_BLD = output_BLD + self._attend(query_BLHK, key_BIHK, value_BIHK)
        return attn.to_out[1](attn.to_out[0](output_BLD))

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        if attn.fused_projections:
            key, value = attn.to_kv(text_BTD).chunk(2, dim=-1)
        else:
            key, value = attn.to_k(text_BTD), attn.to_v(text_BTD)
        return split_heads(attn, attn.norm_k(key)), split_heads(attn, value)


def _image_key_value(attn: Any, image_BID: torch.Tensor) -> KeyValue:
    if attn.fused_projections:
        key, value = attn.to_added_kv(image_BID).chunk(2, dim=-1)
    else:
        key, value = attn.add_k_proj(image_BID), attn.add_v_proj(image_BID)
    return split_heads(attn, attn.norm_added_k(key)), split_heads(attn, value)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, WanAttention) and module.is_cross_attention


ADAPTER = Adapter(
    models=(WanTransformer3DModel, WanVACETransformer3DModel),
    processors={WanAttnProcessor: NagWanAttnProcessor},
    is_text_attention=_is_text_attention,
)
