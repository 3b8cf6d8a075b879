"""Guidance in the attentions of PRX: of the image, to the text and to itself.

The text stays the same in all blocks. The image's keys and values belong to both prompts.

Shapes: B batch, L image tokens, T text tokens of both prompts, D channels, H heads, K channels a
head.
"""

from typing import Any

import torch
from diffusers import PRXTransformer2DModel
from diffusers.models.transformers.transformer_prx import (
    PRXAttention,
    PRXAttnProcessor2_0,
    apply_rope,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.beside_image.added_text import beside_image
from nag.adapters.text_processor import NagTextProcessor
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput

TEXT = TextInput("encoder_hidden_states", "attention_mask")


class NagPRXAttnProcessor(NagTextProcessor):
    """Replaces `PRXAttnProcessor2_0`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        layout = self.text_concat.layout
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != layout.length:
            raise self._refuse_text(
                0 if encoder_hidden_states is None else encoder_hidden_states.shape[1]
            )
        if not layout.negative_length:
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                image_rotary_emb,
                **kwargs,
            )
        of_image = attn.img_qkv_proj(hidden_states).unflatten(2, (3, attn.heads, -1))
        query_BLHK, key_BLHK, value_BLHK = of_image.unbind(2)
        query_BLHK, key_BLHK = attn.norm_q(query_BLHK), attn.norm_k(key_BLHK)
        if image_rotary_emb is not None:
            query_BLHK = _rotated(query_BLHK, image_rotary_emb)
            key_BLHK = _rotated(key_BLHK, image_rotary_emb)
        text_key_BTHK, text_value_BTHK = self._key_value(
            attn, encoder_hidden_states, hidden_states.shape[1]
        )
        bias = None
        if attention_mask is not None:
            bias = attention_mask.bool()[:, None, None]
        output = self.text_concat.guide(
            beside_image(self._attend),
            torch.cat([query_BLHK, key_BLHK, value_BLHK], dim=-1),
            text_key_BTHK,
            text_value_BTHK,
            bias,
        )
        for layer in attn.to_out:
            output = layer(output)
        return output

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTHK, value_BTHK = (
            attn.txt_kv_proj(text_BTD).unflatten(2, (2, attn.heads, -1)).unbind(2)
        )
        return attn.norm_added_k(key_BTHK), value_BTHK


def _rotated(tokens_BLHK: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
    return apply_rope(tokens_BLHK.transpose(1, 2), rotary).transpose(1, 2)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, PRXAttention)


ADAPTER = Adapter(
    models=(PRXTransformer2DModel,),
    processors={PRXAttnProcessor2_0: NagPRXAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=embeds_and_mask,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
)
