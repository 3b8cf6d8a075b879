"""Guidance in the joint attentions of AuraFlow: two-stream blocks, then single-stream blocks.

The model puts tokens of its own before those of the text, and joins text and image between the two
kinds of blocks. Its pipeline sets the filler of a text to zeros, and the model takes no mask.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L image
tokens, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AuraFlowTransformer2DModel
from diffusers.models.attention_processor import (
    Attention,
    AuraFlowAttnProcessor2_0,
    FusedAuraFlowAttnProcessor2_0,
)

from nag.adapters.adapter import Adapter
from nag.adapters.joint.processor import NagJointProcessor, image_projections, text_projections
from nag.attention.text_lanes import LaneRows
from nag.attention.text_lanes_hook import Edit, LanePlan
from nag.params import NagParams


class NagAuraFlowAttnProcessor(NagJointProcessor):
    """Replaces `AuraFlowAttnProcessor2_0` in both kinds of blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(attn, hidden_states, encoder_hidden_states, *args, **kwargs)
        image = image_projections(attn, hidden_states)
        if encoder_hidden_states is None:
            guided_NSD = self.lanes.guide_sequence(self._attend(*image))
            return attn.to_out[1](attn.to_out[0](guided_NSD))
        image_BLD, text_NTD = self.lanes.guide(
            self._attend, image, text_projections(attn, encoder_hidden_states)
        )
        return attn.to_out[1](attn.to_out[0](image_BLD)), attn.to_add_out(text_NTD)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Attention)


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.joint_transformer_blocks:
        yield block.norm1, LaneRows.first
    yield model.norm_out, LaneRows.first


def _outputs(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    yield [model.pos_embed, *model.joint_transformer_blocks][-1], LaneRows.with_lane


def _num_own_tokens(model: Any, _arguments: dict[str, Any]) -> int:
    return model.register_tokens.shape[1]


ADAPTER = Adapter(
    models=(AuraFlowTransformer2DModel,),
    processors=dict.fromkeys(
        (AuraFlowAttnProcessor2_0, FusedAuraFlowAttnProcessor2_0), NagAuraFlowAttnProcessor
    ),
    is_text_attention=_is_text_attention,
    # None are published: SD3.5's.
    defaults=NagParams(nag_scale=5, nag_tau=2.5, nag_alpha=0.125),
    lanes=LanePlan(_parts, _outputs, repeated=("timestep",), further=_num_own_tokens),
)
