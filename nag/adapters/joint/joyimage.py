"""Guidance in the joint attentions of JoyImage Edit, whose blocks are two-stream.

Shapes: N text rows with those of the negative lane, T text tokens.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import JoyImageEditTransformer3DModel
from diffusers.models.transformers.transformer_joyimage import (
    JoyImageAttention,
    JoyImageAttnProcessor,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.joint.processor import NagJointProcessor, rotated
from nag.attention.text.layout import TextInput
from nag.attention.text_lanes import LaneRows, QueryKeyValue
from nag.attention.text_lanes_hook import Edit, LanePlan

TEXT = TextInput("encoder_hidden_states", "encoder_hidden_states_mask")


class NagJoyImageAttnProcessor(NagJointProcessor):
    """Replaces `JoyImageAttnProcessor`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        image_rotary_emb: Any = None,
        attention_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._is_guided(encoder_hidden_states):
            given = {} if attention_mask is None else {"attention_mask": attention_mask}
            return self.stock(attn, hidden_states, encoder_hidden_states, image_rotary_emb, **given)
        image = _projected(
            attn.img_attn_qkv, attn.img_attn_q_norm, attn.img_attn_k_norm, attn.heads, hidden_states
        )
        text = _projected(
            attn.txt_attn_qkv,
            attn.txt_attn_q_norm,
            attn.txt_attn_k_norm,
            attn.heads,
            encoder_hidden_states,
        )
        image, text = self._rotated(image, text, image_rotary_emb)
        length = encoder_hidden_states.shape[1]
        mask_NT = None if attention_mask is None else attention_mask[:, 0, 0, -length:]
        image_output, text_output = self.lanes.guide(self._attend, image, text, mask_NT)
        return attn.img_attn_proj(image_output), attn.txt_attn_proj(text_output)

    def _rotated(
        self, image: QueryKeyValue, text: QueryKeyValue, rotary: Any
    ) -> tuple[QueryKeyValue, QueryKeyValue]:
        of_image, of_text = (None, None) if rotary is None else rotary
        return rotated(image, of_image), rotated(text, of_text)


def _projected(
    layer: Any, norm_q: Any, norm_k: Any, heads: int, hidden: torch.Tensor
) -> QueryKeyValue:
    query, key, value = (one.unflatten(-1, (heads, -1)) for one in layer(hidden).chunk(3, dim=-1))
    return norm_q(query), norm_k(key), value


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, JoyImageAttention)


def _parts(model: Any) -> Iterable[tuple[torch.nn.Module, Edit]]:
    for block in model.double_blocks:
        yield block.img_mod, LaneRows.first


ADAPTER = Adapter(
    models=(JoyImageEditTransformer3DModel,),
    processors={JoyImageAttnProcessor: NagJoyImageAttnProcessor},
    is_text_attention=_is_text_attention,
    # Its pipelines have masks of texts, which its transformer does not take.
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    lanes=LanePlan(_parts, repeated=("timestep",), has_own_lengths=True),
)
