"""Guidance in the text cross-attentions of Stable Audio 3, each of them the difference of two.

The token behind the prompt holds the duration. It belongs to the negative prompt too, as it does in
classifier-free guidance.

Shapes: B batch, L audio tokens, T text tokens, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import StableAudio3DiTModel
from diffusers.models.transformers.transformer_stable_audio3 import (
    StableAudio3CrossAttention,
    StableAudio3CrossAttnProcessor,
)

from nag.adapters.adapter import Adapter, embeds_and_mask
from nag.adapters.text_processor import NagTextProcessor, split_heads
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput

TEXT = TextInput("encoder_hidden_states", "encoder_attention_mask", num_shared_tokens=1)


class NagStableAudio3AttnProcessor(NagTextProcessor):
    """Replaces `StableAudio3CrossAttnProcessor`: the difference of its attentions is guided.

    The queries of both lie behind one another on the axis of channels, and so do the keys.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        context: torch.Tensor,
        context_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        layout = self.text_concat.layout
        if context.shape[1] != layout.length:
            raise self._refuse_text(context.shape[1])
        if not layout.negative_length:
            return self.stock(attn, hidden_states, context, context_mask)
        queries = attn.to_q(hidden_states).chunk(2 if attn.use_differential else 1, dim=-1)
        query_BLHK = torch.cat([attn.q_norm(split_heads(attn, one)) for one in queries], dim=-1)
        key_BTHK, value_BTHK = self._key_value(attn, context, hidden_states.shape[1])
        bias = None
        if context_mask is not None:
            bias = context_mask[:, None, None, :].bool()
        attend = self._attend_to_difference if attn.use_differential else self._attend
        return attn.to_out(self.text_concat.guide(attend, query_BLHK, key_BTHK, value_BTHK, bias))

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        *keys, value = attn.to_kv(text_BTD).chunk(3 if attn.use_differential else 2, dim=-1)
        key_BTHK = torch.cat([attn.k_norm(split_heads(attn, one)) for one in keys], dim=-1)
        return key_BTHK, split_heads(attn, value)

    def _attend_to_difference(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        pairs = zip(query.chunk(2, dim=-1), key.chunk(2, dim=-1), strict=True)
        first, second = (self._attend(*pair, value, bias) for pair in pairs)
        return first - second


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, StableAudio3CrossAttention)


ADAPTER = Adapter(
    models=(StableAudio3DiTModel,),
    processors={StableAudio3CrossAttnProcessor: NagStableAudio3AttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=embeds_and_mask,
)
