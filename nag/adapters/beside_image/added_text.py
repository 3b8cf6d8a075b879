"""Guidance in attentions whose keys and values are those of the text and of the image together.

DeepFloyd's UNets have them. The image's keys and values belong to both prompts: the negative
output is that of the negative prompt beside the image.

Shapes: B batch, C channels of an image, L image tokens, T text tokens, D channels, H heads,
K channels a head.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import AttnAddedKVProcessor, AttnAddedKVProcessor2_0
from torch.nn import functional

from nag.adapters.cross_attention import NagAttnProcessor
from nag.adapters.processor import mask_refusal
from nag.adapters.text_processor import split_heads
from nag.attention.kept_projections import KeyValue
from nag.attention.text_attention import Attend


class NagAddedKVAttnProcessor(NagAttnProcessor):
    """Replaces `AttnAddedKVProcessor2_0`, whose attentions have layers of their own for the text.

    It replaces `AttnAddedKVProcessor` too, which computes the same scores without torch's kernel.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, *args, **kwargs
            )
        if attention_mask is not None:
            raise mask_refusal(self.block)
        tokens_BLD = attn.group_norm(hidden_states.flatten(2)).transpose(1, 2)
        query_BLHK = split_heads(attn, attn.to_q(tokens_BLD))
        image = None
        if not attn.only_cross_attention:
            image = tuple(split_heads(attn, to(tokens_BLD)) for to in (attn.to_k, attn.to_v))
        key_BTHK, value_BTHK = self._key_value(attn, encoder_hidden_states, tokens_BLD.shape[1])
        output_BLD = self.text_concat.guide(
            self._attend if image is None else beside_image(self._attend),
            query_BLHK if image is None else torch.cat([query_BLHK, *image], dim=-1),
            key_BTHK,
            value_BTHK,
        )
        output_BLD = attn.to_out[1](attn.to_out[0](output_BLD))
        return output_BLD.transpose(1, 2).reshape(hidden_states.shape) + hidden_states

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        text_BTD = self._normed_text(attn, text_BTD)
        projections = attn.add_k_proj, attn.add_v_proj
        key_BTHK, value_BTHK = (split_heads(attn, to(text_BTD)) for to in projections)
        return key_BTHK, value_BTHK


def beside_image(attend: Attend) -> Attend:
    """Return an attention that has the image's keys and values behind those of the text.

    Its queries hold their tokens' keys and values behind them on the axis of channels, (B, L, H,
    3 K), so that rows of the one are rows of the others.
    """

    def attend_to_both(
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        query, image_key, image_value = query.chunk(3, dim=-1)
        if bias is not None:
            is_seen = bias.dtype == torch.bool
            bias = functional.pad(bias, (0, image_key.shape[1]), value=float(is_seen))
        key, value = torch.cat([key, image_key], dim=1), torch.cat([value, image_value], dim=1)
        return attend(query, key, value, bias)

    return attend_to_both


PROCESSORS = dict.fromkeys((AttnAddedKVProcessor2_0, AttnAddedKVProcessor), NagAddedKVAttnProcessor)
