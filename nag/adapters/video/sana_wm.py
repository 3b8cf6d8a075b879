"""Guidance in the text cross-attentions of SANA-WM, the world model with a camera.

Its pipeline renders one clip a call.

Shapes: B batch, L video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import SanaWMTransformer3DModel
from diffusers.models.transformers.transformer_sana_wm import (
    MultiHeadCrossAttention,
    SanaWMCrossAttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.text_processor import NagTextProcessor, split_heads
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText

TEXT = TextInput("encoder_hidden_states", "mask")


class NagSanaWMAttnProcessor(NagTextProcessor):
    """Replaces `SanaWMCrossAttnProcessor`, which norms queries and keys across heads."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        layout = self.text_concat.layout
        length = encoder_hidden_states.shape[-2]
        if length != layout.length:
            raise self._refuse_text(length)
        if not layout.negative_length:
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask)
        text_BTD = encoder_hidden_states.flatten(1, -2)  # from (B, 1, T, D)
        query_BLHK = split_heads(attn, attn.q_norm(attn.q_linear(hidden_states)))
        key_BTHK, value_BTHK = self._key_value(attn, text_BTD, query_BLHK.shape[1])
        mask_B11T = None if attention_mask is None else attention_mask.bool()[:, None, None]
        output_BLD = self.text_concat.guide(
            self._attend, query_BLHK, key_BTHK, value_BTHK, mask_B11T
        )
        return attn.proj(output_BLD)

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTD, value_BTD = attn.kv_linear(text_BTD).chunk(2, dim=-1)
        return split_heads(attn, attn.k_norm(key_BTD)), split_heads(attn, value_BTD)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, MultiHeadCrossAttention)


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    # Without the instructions that go before a prompt: so the pipeline encodes its opposite.
    embeds_B1TD, mask = encoded[:2]
    return NegativeText(embeds_B1TD[:, 0], mask)


ADAPTER = Adapter(
    models=(SanaWMTransformer3DModel,),
    processors={SanaWMCrossAttnProcessor: NagSanaWMAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=_negative_text,
    takes_one_text=True,
)
