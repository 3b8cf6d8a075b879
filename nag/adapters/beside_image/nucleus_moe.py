"""Guidance in the attentions of NucleusMoE: of the image, to itself and to the text.

The text stays the same in all blocks. The image's keys and values belong to both prompts, and the
positions of either prompt begin behind those of the image.

Shapes: B batch, L image tokens, T text tokens of both prompts, D channels, H heads, K channels a
head.
"""

from typing import Any

import torch
from diffusers import NucleusMoEImageTransformer2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_nucleusmoe_image import NucleusMoEAttnProcessor2_0
from diffusers.models.transformers.transformer_qwenimage import apply_rotary_emb_qwen

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.beside_image.added_text import beside_image
from nag.adapters.cross_attention import repeat_heads
from nag.adapters.text_processor import NagTextProcessor
from nag.attention.text.layout import TextInput
from nag.errors import NagTextError

# The model has 4096 positions. Its image takes half its longer side of them: 512 at 16384 pixels.
MAX_TEXT_TOKENS = 4096 - 512
TEXT = TextInput(
    "encoder_hidden_states",
    "encoder_hidden_states_mask",
    drops_whole_mask=True,
    max_tokens=MAX_TEXT_TOKENS,
)
_rotate: Any = apply_rotary_emb_qwen


class NagNucleusMoEAttnProcessor(NagTextProcessor):
    """Replaces `NucleusMoEAttnProcessor2_0`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor] | None = None,
        # Diffusers hands on arguments that are named here alone.
        cached_txt_key: torch.Tensor | None = None,
        cached_txt_value: torch.Tensor | None = None,
    ) -> torch.Tensor:
        layout = self.text_concat.layout
        if not layout.negative_length and layout.length:
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                image_rotary_emb,
                cached_txt_key,
                cached_txt_value,
            )
        if cached_txt_key is not None:
            raise NagTextError(
                f"{self.block}: TextKVCacheConfig keeps the keys and values of the text, and "
                "guidance needs the text itself: call disable_cache() of the transformer"
            )
        if encoder_hidden_states is None or encoder_hidden_states.shape[1] != layout.length:
            raise self._refuse_text(
                0 if encoder_hidden_states is None else encoder_hidden_states.shape[1]
            )
        text_BTD, head_dim = encoder_hidden_states, attn.inner_dim // attn.heads
        query = attn.to_q(hidden_states).unflatten(2, (attn.heads, -1))
        key = repeat_heads(attn.to_k(hidden_states), attn.heads, head_dim)
        value = repeat_heads(attn.to_v(hidden_states), attn.heads, head_dim)
        text_key = repeat_heads(attn.add_k_proj(text_BTD), attn.heads, head_dim)
        text_value = repeat_heads(attn.add_v_proj(text_BTD), attn.heads, head_dim)
        query = query if attn.norm_q is None else attn.norm_q(query)
        key = key if attn.norm_k is None else attn.norm_k(key)
        text_key = text_key if attn.norm_added_k is None else attn.norm_added_k(text_key)
        if image_rotary_emb is not None:
            of_image, of_text = image_rotary_emb
            query = _rotate(query, of_image, use_real=False)
            key = _rotate(key, of_image, use_real=False)
            lengths = layout.positive_length, layout.negative_length
            of_texts = torch.cat([of_text[:length] for length in lengths])
            text_key = _rotate(text_key, of_texts, use_real=False)
        # the image's tokens come first
        bias = None if attention_mask is None else attention_mask[:, None, None, query.shape[1] :]
        output = self.text_concat.guide(
            beside_image(self._attend),
            torch.cat([query, key, value], dim=-1),
            text_key,
            text_value,
            bias,
        )
        for layer in attn.to_out:
            output = layer(output)
        return output


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Attention) and module.added_kv_proj_dim is not None


ADAPTER = Adapter(
    models=(NucleusMoEImageTransformer2DModel,),
    processors={NucleusMoEAttnProcessor2_0: NagNucleusMoEAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=embeds_and_mask,
    pads_text=False,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
)
