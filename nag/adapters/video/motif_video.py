"""Guidance in the attentions of Motif-Video: two-stream blocks, then single-stream blocks.

Behind each joint attention, a block may have a cross-attention of the video to the text; that is
guided too. The last blocks of some models, its decoder, attend to the video alone.

Shapes: N rows with those of the negative lane, T text tokens, with those of a first image, L video
tokens, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import MotifVideoTransformer3DModel
from diffusers.models.transformers.transformer_motif_video import (
    MotifVideoAttention,
    MotifVideoAttnProcessor2_0,
    MotifVideoCrossAttention,
    MotifVideoCrossAttnProcessor2_0,
)

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


class NagMotifVideoAttnProcessor(NagJointProcessor):
    """Replaces `MotifVideoAttnProcessor2_0` in both kinds of blocks."""

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
        has_own = attn.add_q_proj is not None
        video, text_NTD = self.lanes.guide(
            self._attend,
            rotated(image_projections(attn, hidden_states), image_rotary_emb),
            (text_projections if has_own else image_projections)(attn, encoder_hidden_states),
            _mask_of_text(attention_mask, encoder_hidden_states.shape[1]),
        )
        if attn.to_out is not None:
            video = attn.to_out[1](attn.to_out[0](video))
        return video, text_NTD if attn.to_add_out is None else attn.to_add_out(text_NTD)


class NagMotifVideoCrossAttnProcessor(NagJointProcessor):
    """Replaces `MotifVideoCrossAttnProcessor2_0`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        image_embed_seq_len: int = 0,
    ) -> torch.Tensor:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                image_rotary_emb,
                image_embed_seq_len,
            )
        text_NTD = encoder_hidden_states[:, image_embed_seq_len:]
        query, key, value = (
            layer(tokens).unflatten(2, (attn.heads, -1))
            for layer, tokens in (
                (attn.to_q, hidden_states),
                (attn.to_k, text_NTD),
                (attn.to_v, text_NTD),
            )
        )
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        query, _, _ = rotated((query, query, query), image_rotary_emb)
        output = self.lanes.guide_cross(
            self._attend, query, (key, value), _mask_of_text(attention_mask, text_NTD.shape[1])
        )
        return attn.to_out[1](attn.to_out[0](output))


def _mask_of_text(attention_mask: torch.Tensor | None, length: int) -> torch.Tensor | None:
    """Return the mask (N, T) of the last tokens, which are the text's."""
    return None if attention_mask is None else attention_mask[:, 0, 0, -length:]


class _MotifVideoAdapter(Adapter):
    def text_attentions(self, model: Any) -> list[tuple[str, Any]]:
        """Return every attention to text, with its name: the decoder has none."""
        of_decoder = {module for block in _decoder(model) for module in block.modules()}
        return [one for one in super().text_attentions(model) if one[1] not in of_decoder]


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, MotifVideoAttention | MotifVideoCrossAttention)


def _decoder(model: Any) -> list[torch.nn.Module]:
    blocks = list(model.single_transformer_blocks)
    return blocks[len(blocks) - model.num_decoder_layers :]


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.transformer_blocks:
        yield block.norm1, LaneRows.first
    decoder = _decoder(model)
    for block in model.single_transformer_blocks:
        yield block, LaneRows.first if block in decoder else LaneRows.with_lane
    yield model.norm_out, LaneRows.first


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    embeds, _, mask, _ = encoded
    return NegativeText(embeds, mask)


def _num_image_tokens(_model: Any, arguments: dict[str, Any]) -> int:
    image = arguments.get("image_embeds")
    return 0 if image is None else image.shape[1]


ADAPTER = _MotifVideoAdapter(
    models=(MotifVideoTransformer3DModel,),
    processors={
        MotifVideoAttnProcessor2_0: NagMotifVideoAttnProcessor,
        MotifVideoCrossAttnProcessor2_0: NagMotifVideoCrossAttnProcessor,
    },
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    lanes=LanePlan(_parts, repeated=("timestep", "image_embeds"), further=_num_image_tokens),
)
