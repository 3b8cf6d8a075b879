"""Guidance in the joint attentions of CogVideoX and of ConsisID, which is made from it.

Their norms take the text and the video at once, so the video's rows are repeated in all blocks.

Shapes: N rows with those of the negative lane, T text tokens, L video tokens, D channels.
"""

from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, ConsisIDTransformer3DModel
from diffusers.models.attention_processor import Attention, CogVideoXAttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.joint.processor import NagJointProcessor, Rotary, image_projections, rotated
from nag.adapters.processor import mask_refusal
from nag.attention.text_lanes import QueryKeyValue
from nag.attention.text_lanes_hook import LanePlan


class NagCogVideoXAttnProcessor(NagJointProcessor):
    """Replaces `CogVideoXAttnProcessor2_0`."""

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
        image_NLD, text_NTD = self.lanes.guide(
            self._attend,
            self._rotated(image_projections(attn, hidden_states), image_rotary_emb),
            image_projections(attn, encoder_hidden_states),
        )
        out = attn.to_out
        return out[1](out[0](image_NLD)), out[1](out[0](text_NTD))

    def _rotated(self, image: QueryKeyValue, rotary: Rotary | None) -> QueryKeyValue:
        return rotated(image, rotary)


def is_text_attention(_name: str, module: Any) -> bool:
    """Return True for every attention: all of them take text and image."""
    return isinstance(module, Attention)


ADAPTER = Adapter(
    models=(CogVideoXTransformer3DModel, ConsisIDTransformer3DModel),
    processors={CogVideoXAttnProcessor2_0: NagCogVideoXAttnProcessor},
    is_text_attention=is_text_attention,
    # ConsisID's attentions to a face follow a block, for the video alone.
    lanes=LanePlan(repeated=("hidden_states", "timestep", "id_cond", "id_vit_hidden")),
)
