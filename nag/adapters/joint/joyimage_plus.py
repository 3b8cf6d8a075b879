"""Guidance in the joint attentions of JoyImage Edit Plus.

Each row has its own positions, and its images are filled up to those of the longest row; a guided
call must have no such filler. The model makes both for the rows of the latents, so the image's rows
are repeated in all blocks.

Shapes: N rows with those of the negative lane, L image tokens, H heads, K channels a head.
"""

from math import prod
from typing import Any

import torch
from diffusers import JoyImageEditPlusTransformer3DModel
from diffusers.models.transformers.transformer_joyimage_edit_plus import (
    JoyImageEditPlusAttention,
    JoyImageEditPlusAttnProcessor,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.joint.joyimage import TEXT, NagJoyImageAttnProcessor
from nag.adapters.joint.processor import Rotary
from nag.attention.text_lanes import QueryKeyValue
from nag.attention.text_lanes_hook import LanePlan


class NagJoyImageEditPlusAttnProcessor(NagJoyImageAttnProcessor):
    """Replaces `JoyImageEditPlusAttnProcessor`, in which each row has its positions."""

    def _rotated(
        self, image: QueryKeyValue, text: QueryKeyValue, rotary: Any
    ) -> tuple[QueryKeyValue, QueryKeyValue]:
        if rotary is None:
            return image, text
        query, key, value = image
        return (_rotated_rows(query, rotary), _rotated_rows(key, rotary), value), text


def _rotated_rows(tokens: torch.Tensor, rotary: Rotary) -> torch.Tensor:
    """Return tokens (rows, L, H, K) with their positions, cosines and sines (rows, L, K)."""
    cosines, sines = (one[:, :, None].to(tokens.device) for one in rotary)
    even, odd = tokens.float().unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([-odd, even], dim=-1).flatten(-2)
    return (tokens.float() * cosines + turned * sines).to(tokens.dtype)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, JoyImageEditPlusAttention)


def _refusal(arguments: dict[str, Any]) -> str | None:
    counts = {sum(map(prod, one)) for one in arguments.get("shape_list") or ()}
    if len(counts) < 2:
        return None
    return (
        "the rows of a guided call must have as many image tokens, with those of their reference "
        f"images, got {sorted(counts)}: render the prompts one by one"
    )


ADAPTER = Adapter(
    models=(JoyImageEditPlusTransformer3DModel,),
    processors={JoyImageEditPlusAttnProcessor: NagJoyImageEditPlusAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=embeds_and_mask,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    lanes=LanePlan(
        repeated=("hidden_states", "timestep", "shape_list"),
        has_own_lengths=True,
        refusal=_refusal,
    ),
)
