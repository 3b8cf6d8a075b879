"""Guidance in the joint attentions of HunyuanVideo 1.5, whose blocks are all two-stream.

The text of a row is three: the tokens of an image, the letters that the prompt quotes, and the
prompt. The model joins those of each row and puts the tokens that are text before those that fill
it up; text has no positions here, so each lane keeps its own order. Both lanes have the image's.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L video
tokens, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import HunyuanVideo15Transformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video15 import HunyuanVideo15AttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.joint.hunyuan_image import GLYPHS, text_with_glyphs
from nag.adapters.joint.hunyuan_video import is_text_attention
from nag.adapters.joint.processor import (
    NagJointProcessor,
    Rotary,
    image_projections,
    rotated,
    text_projections,
)
from nag.attention.text_lanes import LaneRows
from nag.attention.text_lanes_hook import Edit, LanePlan


class NagHunyuanVideo15AttnProcessor(NagJointProcessor):
    """Replaces `HunyuanVideo15AttnProcessor2_0`.

    The stock one masks the queries of the tokens that fill up a text too. No token attends to
    those, so the video is the same without.
    """

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
            rotated(image_projections(attn, hidden_states), image_rotary_emb),
            text_projections(attn, encoder_hidden_states),
            attention_mask,
        )
        return attn.to_out[1](attn.to_out[0](video_BLD)), attn.to_add_out(text_NTD)


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    # The model makes the mask of the image's tokens, and its output, for the rows of the latents.
    yield model.x_embedder, LaneRows.first
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    yield model.norm_out, LaneRows.with_lane


def _num_further_tokens(_model: Any, arguments: dict[str, Any]) -> int:
    texts = (arguments.get(name) for name in (GLYPHS.embeds, "image_embeds"))
    return sum(one.shape[1] for one in texts if one is not None)


ADAPTER = Adapter(
    models=(HunyuanVideo15Transformer3DModel,),
    processors={HunyuanVideo15AttnProcessor2_0: NagHunyuanVideo15AttnProcessor},
    is_text_attention=is_text_attention,
    negative_text=text_with_glyphs,
    lanes=LanePlan(
        _parts,
        repeated=("hidden_states", "timestep", "timestep_r", "image_embeds"),
        glyphs=GLYPHS,
        further=_num_further_tokens,
    ),
)
