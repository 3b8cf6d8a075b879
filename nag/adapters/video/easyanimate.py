"""Guidance in the joint attentions of EasyAnimate.

Its norms take the text and the video at once, so the video's rows are repeated in all blocks. The
last blocks of some models have one set of weights for both; those project the text's output not at
all.
"""

from typing import Any

import torch
from diffusers import EasyAnimateTransformer3DModel
from diffusers.models.transformers.transformer_easyanimate import EasyAnimateAttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.joint.cogvideox import is_text_attention
from nag.adapters.joint.processor import (
    NagJointProcessor,
    Rotary,
    image_projections,
    rotated,
    text_projections,
)
from nag.adapters.processor import mask_refusal
from nag.attention.text_lanes_hook import LanePlan


class NagEasyAnimateAttnProcessor(NagJointProcessor):
    """Replaces `EasyAnimateAttnProcessor2_0`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        if attention_mask is not None:
            raise mask_refusal(self.block)
        has_own = attn.add_q_proj is not None
        video_NLD, text_NTD = self.lanes.guide(
            self._attend,
            rotated(image_projections(attn, hidden_states), image_rotary_emb),
            (text_projections if has_own else image_projections)(attn, encoder_hidden_states),
        )
        if attn.to_add_out is not None:
            text_NTD = attn.to_add_out(text_NTD)
        return attn.to_out[1](attn.to_out[0](video_NLD)), text_NTD


ADAPTER = Adapter(
    models=(EasyAnimateTransformer3DModel,),
    processors={EasyAnimateAttnProcessor2_0: NagEasyAnimateAttnProcessor},
    is_text_attention=is_text_attention,
    lanes=LanePlan(
        repeated=("hidden_states", "timestep", "inpaint_latents", "control_latents"),
        has_own_lengths=True,
    ),
)
