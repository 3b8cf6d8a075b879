"""Guidance in the joint attentions of Mochi.

Its timestep embedding has a part of the text, pooled. Tokens of a text that fill it up take no part
in attention.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L video
tokens, D channels, H heads, K channels a head.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import MochiTransformer3DModel
from diffusers.models.attention_processor import MochiAttention, MochiAttnProcessor2_0

from nag.adapters.adapter import Adapter, embeds_and_mask
from nag.adapters.joint.processor import NagJointProcessor, image_projections, text_projections
from nag.attention.text_lanes import LaneRows, QueryKeyValue
from nag.attention.text_lanes_hook import Edit, LanePlan

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (L, H, K / 2)


class NagMochiAttnProcessor(NagJointProcessor):
    """Replaces `MochiAttnProcessor2_0`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        video_BLD, text_NTD = self.lanes.guide(
            self._attend,
            _rotated(image_projections(attn, hidden_states), image_rotary_emb),
            text_projections(attn, encoder_hidden_states),
            attention_mask,
        )
        # The stock processor leaves zeros where a text is filled up.
        text_NTD = text_NTD * attention_mask[..., None].to(text_NTD)
        if not attn.context_pre_only:
            text_NTD = attn.to_add_out(text_NTD)
        return attn.to_out[1](attn.to_out[0](video_BLD)), text_NTD


def _rotated(projected: QueryKeyValue, rotary: Rotary | None) -> QueryKeyValue:
    """Return a projection of the video with its positions, which differ from head to head."""
    if rotary is None:
        return projected
    turns = torch.complex(*(one.float() for one in rotary))
    query, key = (
        torch.view_as_real(torch.view_as_complex(one.float().unflatten(-1, (-1, 2))) * turns)
        .flatten(-2)
        .to(one.dtype)
        for one in projected[:2]
    )
    return query, key, projected[2]


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, MochiAttention)


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    yield model.norm_out, LaneRows.first


ADAPTER = Adapter(
    models=(MochiTransformer3DModel,),
    processors={MochiAttnProcessor2_0: NagMochiAttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=embeds_and_mask,
    lanes=LanePlan(_parts, repeated=("timestep",)),
)
