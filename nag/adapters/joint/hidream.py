"""Guidance in the joint attentions of HiDream: two-stream blocks, then single-stream blocks.

Every block adds the text by one more layer of Llama to the text that the model updates, and text
has no positions. The modulation of a block is one for image and text, and knows the pooled text, so
the image's rows are repeated for the negative lane in all blocks. In two-stream blocks the image of
the prompt serves both lanes, and the lane gets it before the single-stream blocks.

Shapes: B rows of a call, N rows with those of the negative lane, S tokens of image and text, L
image tokens, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import HiDreamImageTransformer2DModel
from diffusers.models.transformers.transformer_hidream_image import (
    HiDreamAttention,
    HiDreamAttnProcessor,
    apply_rope,
)

from nag.adapters.adapter import Adapter
from nag.adapters.joint.processor import NagJointProcessor
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText
from nag.attention.text_lanes import LaneRows, QueryKeyValue
from nag.attention.text_lanes_hook import Edit, LanePlan
from nag.params import NagParams

T5 = TextInput("encoder_hidden_states_t5", "encoder_attention_mask")
LLAMA = "encoder_hidden_states_llama3"
IMAGE = ("to_q", "to_k", "to_v", "q_rms_norm", "k_rms_norm")
TEXT = tuple(f"{name}_t" for name in IMAGE)


class NagHiDreamAttnProcessor(NagJointProcessor):
    """Replaces `HiDreamAttnProcessor` in both kinds of blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        hidden_states_masks: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn,
                hidden_states,
                hidden_states_masks,
                encoder_hidden_states,
                image_rotary_emb,
                *args,
                **kwargs,
            )
        query, key, value = _projections(attn, hidden_states, IMAGE)
        if hidden_states_masks is not None:  # 0 in the filler of an image with two unequal sides
            key = key * hidden_states_masks[:, :, None, None]
        if encoder_hidden_states is None:
            return self._single(attn, _rotated((query, key, value), image_rotary_emb))
        length = hidden_states.shape[1]
        text = _projections(attn, encoder_hidden_states, TEXT)
        both = [torch.cat(pair, 1) for pair in zip((query, key, value), text, strict=True)]
        query, key, value = _rotated((both[0], both[1], both[2]), image_rotary_emb)
        rows = self.lanes.rows
        assert rows is not None
        image_BLD, text_NTD = self.lanes.guide(
            self._attend,
            (
                rows.first(query[:, :length]),
                rows.first(key[:, :length]),
                rows.first(value[:, :length]),
            ),
            (query[:, length:], key[:, length:], value[:, length:]),
        )
        return rows.with_lane(attn.to_out(image_BLD)), attn.to_out_t(text_NTD)

    def _single(self, attn: Any, projected: QueryKeyValue) -> torch.Tensor:
        """Return the output for a sequence of image and text, (N, S, D)."""
        rows = self.lanes.rows
        assert rows is not None
        query, key, value = projected
        length = query.shape[1] - rows.width
        image_NLD, text_NTD = self.lanes.guide(
            self._attend,
            (query[:, :length], key[:, :length], value[:, :length]),
            (query[:, length:], key[:, length:], value[:, length:]),
        )
        return attn.to_out(torch.cat([image_NLD, text_NTD], dim=1))


def _projections(attn: Any, hidden: torch.Tensor, names: tuple[str, ...]) -> QueryKeyValue:
    to_q, to_k, to_v, norm_q, norm_k = (getattr(attn, name) for name in names)
    query, key, value = (
        one.to(hidden.dtype).unflatten(-1, (attn.heads, -1))
        for one in (norm_q(to_q(hidden)), norm_k(to_k(hidden)), to_v(hidden))
    )
    return query, key, value


def _rotated(projected: QueryKeyValue, rotary: torch.Tensor | None) -> QueryKeyValue:
    """Return the projections with their positions, which may turn a part of each head."""
    assert rotary is not None
    query, key, value = projected
    num_turned = 2 * rotary.shape[-3]
    (query, rest), (key, rest_of_key) = (
        one.tensor_split([num_turned], dim=-1) for one in (query, key)
    )
    query, key = apply_rope(query, key, rotary)
    return torch.cat([query, rest], -1), torch.cat([key, rest_of_key], -1), value


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, HiDreamAttention)


def _share_image(rows: LaneRows, tensor: torch.Tensor) -> torch.Tensor:
    """Return a sequence whose image tokens are, in the lane, those of the guided rows."""
    if tensor.ndim != 3:  # masks, modulation and positions
        return tensor
    image, text = tensor.tensor_split([tensor.shape[1] - rows.width], dim=1)
    return torch.cat([rows.with_lane(rows.first(image)), text], dim=1)


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.single_stream_blocks[:1]:
        yield block, _share_image


def _num_layer_tokens(_model: Any, arguments: dict[str, Any]) -> int:
    # The last layer goes through all blocks beside T5's text, and each block adds its own.
    return 2 * arguments[LLAMA].shape[2]


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0], pooled=encoded[4], layer_embeds=encoded[2])


ADAPTER = Adapter(
    models=(HiDreamImageTransformer2DModel,),
    processors={HiDreamAttnProcessor: NagHiDreamAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(T5,),
    negative_text=_negative_text,
    # The author's in ComfyUI-NAG for all of its families.
    defaults=NagParams(nag_scale=5, nag_tau=2.5, nag_alpha=0.25),
    lanes=LanePlan(
        _parts,
        pooled="pooled_embeds",
        repeated=("hidden_states", "timesteps"),
        layers=LLAMA,
        further=_num_layer_tokens,
    ),
)
