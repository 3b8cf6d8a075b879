"""Guidance in the text cross-attentions of LongCat's audio model.

It passes its text through convolutions and adds the mean of it to the embedding of time: that of
the prompt. So the negative prompt is put behind the prompt's text in the blocks, each at positions
from 0.

Shapes: B batch, L audio tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import LongCatAudioDiTTransformer
from diffusers.models.transformers.transformer_longcat_audio_dit import (
    AudioDiTAttention,
    AudioDiTCrossAttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.text_processor import NagTextProcessor, split_heads
from nag.attention.block_text.hook import BlockTextPlan
from nag.attention.text.negative_text import NegativeText


class NagAudioDiTAttnProcessor(NagTextProcessor):
    """Replaces `AudioDiTCrossAttnProcessor`, which rotates its queries and keys."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        post_attention_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        audio_rotary_emb: Any = None,
        prompt_rotary_emb: Any = None,
    ) -> torch.Tensor:
        layout = self.text_concat.layout
        if encoder_hidden_states.shape[1] != layout.length:
            raise self._refuse_text(encoder_hidden_states.shape[1])
        if not layout.negative_length:
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                post_attention_mask,
                attention_mask,
                audio_rotary_emb,
                prompt_rotary_emb,
            )
        query_BLD, key_BTD = attn.to_q(hidden_states), attn.to_k(encoder_hidden_states)
        if attn.qk_norm:
            query_BLD, key_BTD = attn.q_norm(query_BLD), attn.k_norm(key_BTD)
        query_BLHK = _rotated(split_heads(attn, query_BLD), audio_rotary_emb)
        key_BTHK = _rotated(split_heads(attn, key_BTD), prompt_rotary_emb)
        value_BTHK = split_heads(attn, attn.to_v(encoder_hidden_states))
        bias = None
        if attention_mask is not None:
            bias = attention_mask[:, None, None, :]
        output_BLD = self.text_concat.guide(self._attend, query_BLHK, key_BTHK, value_BTHK, bias)
        if post_attention_mask is not None:
            output_BLD = output_BLD * post_attention_mask[:, :, None].to(output_BLD.dtype)
        return attn.to_out[1](attn.to_out[0](output_BLD))


def _rotated(tokens_BTHK: torch.Tensor, rotary_emb: Any) -> torch.Tensor:
    if rotary_emb is None:
        return tokens_BTHK
    cosine, sine = (part[None, :, None].to(tokens_BTHK.device) for part in rotary_emb)
    first, second = tokens_BTHK.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (tokens_BTHK.float() * cosine + turned * sine).to(tokens_BTHK.dtype)


def _is_text_attention(name: str, module: Any) -> bool:
    return isinstance(module, AudioDiTAttention) and name.endswith(".cross_attn")


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    embeds, lengths = encoded
    tokens = torch.arange(embeds.shape[1], device=embeds.device)
    return NegativeText(embeds, tokens[None] < lengths[:, None])


ADAPTER = Adapter(
    models=(LongCatAudioDiTTransformer,),
    processors={AudioDiTCrossAttnProcessor: NagAudioDiTAttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    block_text=BlockTextPlan("blocks", "cond", "cond_mask", {"cond_rope": 0}),
)
