"""Guidance in the text cross-attentions of Stable Audio.

Two tokens behind the prompt hold the start and the end in seconds. They belong to the negative
prompt too, as they do in classifier-free guidance.

Shapes: B batch, L audio tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import StableAudioDiTModel
from diffusers.models.attention_processor import StableAudioAttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.cross_attention import NagAttnProcessor, is_text_attention, repeat_heads
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText
from nag.errors import UnsupportedCallError

TEXT = TextInput("encoder_hidden_states", "encoder_attention_mask", num_shared_tokens=2)


class NagStableAudioAttnProcessor(NagAttnProcessor):
    """Replaces `StableAudioAttnProcessor2_0`, whose keys and values have fewer heads."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
    ) -> torch.Tensor:
        if rotary_emb is not None:
            raise UnsupportedCallError(
                "Stable Audio's text cross-attention takes no rotary embedding, got one"
            )
        if not self._is_guided(encoder_hidden_states):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask)
        return self._call(attn, hidden_states, hidden_states, encoder_hidden_states, attention_mask)

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTHK, value_BTHK = (
            repeat_heads(projection(text_BTD), attn.heads, attn.inner_dim // attn.heads)
            for projection in (attn.to_k, attn.to_v)
        )
        return key_BTHK if attn.norm_k is None else attn.norm_k(key_BTHK), value_BTHK


def _negative_text(_pipeline: Any, encoded: torch.Tensor) -> NegativeText:
    return NegativeText(encoded)  # padding is zero


ADAPTER = Adapter(
    models=(StableAudioDiTModel,),
    processors={StableAudioAttnProcessor2_0: NagStableAudioAttnProcessor},
    is_text_attention=is_text_attention,
    texts=(TEXT,),
    negative_text=_negative_text,
)
