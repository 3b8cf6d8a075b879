"""Guidance in the joint attentions of HunyuanVideo: two-stream blocks, then single-stream blocks.

Framepack is made of the same blocks. It puts the tokens of a first image before the text, in both
lanes, and those of earlier frames before the video; they are guided with the video.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L video
tokens, S tokens of both, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import HunyuanVideoFramepackTransformer3DModel, HunyuanVideoTransformer3DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoAttnProcessor2_0

from nag.adapters.adapter import Adapter
from nag.adapters.joint.processor import (
    NagJointProcessor,
    Rotary,
    image_projections,
    rotated,
    text_projections,
)
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows
from nag.attention.text_lanes_hook import Edit, LanePlan


class NagHunyuanVideoAttnProcessor(NagJointProcessor):
    """Replaces `HunyuanVideoAttnProcessor2_0`, and its copy in HunyuanImage, in all blocks."""

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
        video = rotated(image_projections(attn, hidden_states), image_rotary_emb)
        mask_NS = None if attention_mask is None else attention_mask[:, 0, 0]  # the video's first
        num_video_tokens = hidden_states.shape[1]
        if attn.add_q_proj is not None:
            video_BLD, text_NTD = self.lanes.guide(
                self._attend,
                video,
                text_projections(attn, encoder_hidden_states),
                None if mask_NS is None else mask_NS[:, num_video_tokens:],
            )
            return attn.to_out[1](attn.to_out[0](video_BLD)), attn.to_add_out(text_NTD)
        text = image_projections(attn, encoder_hidden_states)
        query, key, value = (torch.cat(pair, 1) for pair in zip(text, video, strict=True))
        if mask_NS is not None:
            mask_NS = mask_NS.roll(encoder_hidden_states.shape[1], dims=1)  # the text's first
        output_NSD = self._attend(
            query, key, value, None if mask_NS is None else mask_NS[:, None, None]
        )
        text_NTD, video_NLD = self.lanes.guide_sequence(output_NSD).split_with_sizes(
            [encoder_hidden_states.shape[1], num_video_tokens], dim=1
        )
        return video_NLD, text_NTD


def is_text_attention(name: str, module: Any) -> bool:
    """Return True for an attention of the blocks."""
    # The refiner of the text has attentions too, of the text alone.
    in_blocks = name.startswith(("transformer_blocks.", "single_transformer_blocks."))
    return in_blocks and isinstance(module, Attention)


def parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    """Return the parts of a model that take the rows of the call, or those of both lanes."""
    # The model makes its mask for the rows of the latents, so they are repeated up to here.
    yield model.x_embedder, LaneRows.first
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    for block in model.single_transformer_blocks:
        yield block, LaneRows.with_lane


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    embeds, pooled, mask = encoded
    return NegativeText(embeds, mask, pooled=pooled)


def _num_image_tokens(_model: Any, arguments: dict[str, Any]) -> int:
    image = arguments.get("image_embeds")
    return 0 if image is None else image.shape[1]


ADAPTER = Adapter(
    models=(HunyuanVideoTransformer3DModel, HunyuanVideoFramepackTransformer3DModel),
    processors={HunyuanVideoAttnProcessor2_0: NagHunyuanVideoAttnProcessor},
    is_text_attention=is_text_attention,
    negative_text=_negative_text,
    lanes=LanePlan(
        parts,
        pooled="pooled_projections",
        repeated=("hidden_states", "timestep", "guidance", "image_embeds"),
        further=_num_image_tokens,
    ),
)
