"""Guidance in the joint attentions of CogView 3 Plus and CogView 4.

Their norms take the text and the image at once, so the image's rows are repeated in all blocks.
A text has no positions in these models, and CogView 4 fills it up to a multiple of 16 tokens alone,
so the lanes may have two lengths.
"""

from typing import Any

from diffusers import CogView3PlusTransformer2DModel, CogView4Transformer2DModel
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_cogview4 import CogView4AttnProcessor

from nag.adapters.adapter import Adapter
from nag.adapters.joint.cogvideox import NagCogVideoXAttnProcessor, is_text_attention
from nag.adapters.joint.processor import Rotary
from nag.attention.text_lanes import QueryKeyValue
from nag.attention.text_lanes_hook import LanePlan

_rotate: Any = apply_rotary_emb


class NagCogView4AttnProcessor(NagCogVideoXAttnProcessor):
    """Replaces `CogView4AttnProcessor`, whose positions turn the halves of a head."""

    def _rotated(self, image: QueryKeyValue, rotary: Rotary | None) -> QueryKeyValue:
        if rotary is None:
            return image
        query, key = (
            _rotate(one, rotary, use_real_unbind_dim=-2, sequence_dim=1) for one in image[:2]
        )
        return query, key, image[2]


ADAPTER = Adapter(
    models=(CogView3PlusTransformer2DModel, CogView4Transformer2DModel),
    processors={
        CogVideoXAttnProcessor2_0: NagCogVideoXAttnProcessor,
        CogView4AttnProcessor: NagCogView4AttnProcessor,
    },
    is_text_attention=is_text_attention,
    lanes=LanePlan(
        repeated=("hidden_states", "timestep", "original_size", "target_size", "crop_coords"),
        has_own_lengths=True,
    ),
)
