"""Guidance in the joint attentions of Stable Diffusion 3 and 3.5.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L image
tokens, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models.attention_processor import (
    Attention,
    FusedJointAttnProcessor2_0,
    JointAttnProcessor2_0,
)

from nag.adapters.adapter import Adapter
from nag.adapters.joint.processor import NagJointProcessor, image_projections, text_projections
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows
from nag.attention.text_lanes_hook import Edit, LanePlan
from nag.params import NagParams


class NagJointAttnProcessor(NagJointProcessor):
    """Replaces `JointAttnProcessor2_0` in the attentions of image and text."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, **kwargs)
        image_BLD, text_NTD = self.lanes.guide(
            self._attend,
            image_projections(attn, hidden_states),
            text_projections(attn, encoder_hidden_states),
        )
        if not attn.context_pre_only:
            text_NTD = attn.to_add_out(text_NTD)
        return attn.to_out[1](attn.to_out[0](image_BLD)), text_NTD


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Attention) and module.added_kv_proj_dim is not None


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    yield model.norm_out, LaneRows.first


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0], pooled=encoded[2])


ADAPTER = Adapter(
    models=(SD3Transformer2DModel,),
    processors=dict.fromkeys(
        (JointAttnProcessor2_0, FusedJointAttnProcessor2_0), NagJointAttnProcessor
    ),
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    # The author's for SD3.5 Large.
    defaults=NagParams(nag_scale=5, nag_tau=2.5, nag_alpha=0.125),
    lanes=LanePlan(
        _parts,
        pooled="pooled_projections",
        repeated=("timestep",),
        can_flip=True,
    ),
)
