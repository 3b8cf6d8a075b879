"""Guidance in the joint attentions of Qwen-Image.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L image
tokens, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import QwenImageTransformer2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_qwenimage import (
    QwenDoubleStreamAttnProcessor2_0,
    apply_rotary_emb_qwen,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.joint.processor import NagJointProcessor, image_projections, text_projections
from nag.attention.text.layout import TextInput
from nag.attention.text_lanes import LaneRows, QueryKeyValue
from nag.attention.text_lanes_hook import Edit, LanePlan

_rotate: Any = apply_rotary_emb_qwen


class NagQwenAttnProcessor(NagJointProcessor):
    """Replaces `QwenDoubleStreamAttnProcessor2_0`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        encoder_hidden_states_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states) or attention_mask is not None:
            return self.stock(  # it refuses an attention mask
                attn,
                hidden_states,
                encoder_hidden_states,
                encoder_hidden_states_mask,
                attention_mask,
                image_rotary_emb,
            )
        image = image_projections(attn, hidden_states)
        text = text_projections(attn, encoder_hidden_states)
        if image_rotary_emb is not None:
            image, text = _rotated(image, image_rotary_emb[0]), _rotated(text, image_rotary_emb[1])
        image_BLD, text_NTD = self.lanes.guide(
            self._attend, image, text, encoder_hidden_states_mask
        )
        return attn.to_out[1](attn.to_out[0](image_BLD)), attn.to_add_out(text_NTD)


def _rotated(projected: QueryKeyValue, rotary: torch.Tensor) -> QueryKeyValue:
    query, key, value = projected
    query = _rotate(query, rotary, use_real=False)
    return query, _rotate(key, rotary, use_real=False), value


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Attention) and module.added_kv_proj_dim is not None


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    # The time embedding has no part of the text, so the lane takes that of its row of the call.
    for block in model.transformer_blocks:
        yield block.txt_mod, LaneRows.with_lane


ADAPTER = Adapter(
    models=(QwenImageTransformer2DModel,),
    processors={QwenDoubleStreamAttnProcessor2_0: NagQwenAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TextInput("encoder_hidden_states", "encoder_hidden_states_mask"),),
    negative_text=embeds_and_mask,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    lanes=LanePlan(_parts, has_own_lengths=True, can_flip=True),
)
