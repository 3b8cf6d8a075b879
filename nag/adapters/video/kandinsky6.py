"""Guidance in the text cross-attentions of Kandinsky 6, of its video and of its sound.

Its text passes through blocks of its own, one way for the video and one for the sound. There each
prompt attends to itself alone, from position 0; the pooled text, which modulates these blocks, is
that of the prompt for both.

Shapes: B batch, L tokens of video or sound, T text tokens of both prompts, D channels, H heads, K
channels a head.
"""

from typing import Any

import torch
from diffusers import Kandinsky6Transformer3DModel
from diffusers.models.transformers.transformer_kandinsky6 import (
    Kandinsky6Attention,
    Kandinsky6AttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.text_processor import NagTextProcessor
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText
from nag.errors import UnsupportedCallError

MAX_POSITIONS = 2048
TEXT = TextInput(
    "encoder_hidden_states",
    "encoder_attention_mask",
    drops_whole_mask=True,
    max_tokens=MAX_POSITIONS,
)


class NagKandinsky6AttnProcessor(NagTextProcessor):
    """Replaces `Kandinsky6AttnProcessor` in the attentions of the text, and in those to it."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: torch.Tensor | None = None,
        rotary_emb_kv: torch.Tensor | None = None,
        attn_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        text_BTD = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layout = self.text_concat.layout
        if text_BTD.shape[1] != layout.length:
            raise self._refuse_text(text_BTD.shape[1])
        if not layout.negative_length:
            return self.stock(
                attn, hidden_states, encoder_hidden_states, rotary_emb, rotary_emb_kv, attn_mask
            )
        if encoder_hidden_states is None:
            return self._attend_within(attn, hidden_states, rotary_emb, attn_mask)
        if rotary_emb is not None or rotary_emb_kv is not None:
            raise UnsupportedCallError(
                "Kandinsky's text cross-attention takes no rotary embedding, got one"
            )
        key_BTHK, value_BTHK = self._key_value(attn, text_BTD, hidden_states.shape[1])
        query_BLHK = attn.query_norm(_split_heads(attn, attn.to_query(hidden_states)))
        bias = None if attn_mask is None else attn_mask[:, None, None]
        output_BLD = self.text_concat.guide(self._attend, query_BLHK, key_BTHK, value_BTHK, bias)
        return attn.out_layer(output_BLD)

    def _attend_within(
        self, attn: Any, text_BTD: torch.Tensor, rotary: Any, mask_BT: torch.Tensor | None
    ) -> torch.Tensor:
        """Let each of the two prompts attend to itself."""
        layout = self.text_concat.layout
        prompts = (slice(0, layout.positive_length), slice(layout.positive_length, None))
        lengths = layout.positive_length, layout.negative_length
        outputs = [
            self.stock(
                attn,
                text_BTD[:, tokens],
                None,
                rotary[:length],
                rotary[:length],
                None if mask_BT is None else mask_BT[:, tokens],
            )
            for tokens, length in zip(prompts, lengths, strict=True)
        ]
        return torch.cat(outputs, dim=1)

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTHK = attn.key_norm(_split_heads(attn, attn.to_key(text_BTD)))
        return key_BTHK, _split_heads(attn, attn.to_value(text_BTD))


def _split_heads(attn: Any, projected: torch.Tensor) -> torch.Tensor:
    return projected.unflatten(2, (attn.num_heads, -1))


def _is_text_attention(name: str, module: Any) -> bool:
    # Video and sound attend to one another in `va_cross_attention` and `av_cross_attention`.
    of_text = "_text_transformer_blocks." in name or name.endswith("_dec_block.cross_attention")
    return isinstance(module, Kandinsky6Attention) and of_text


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0], encoded[2])


ADAPTER = Adapter(
    models=(Kandinsky6Transformer3DModel,),
    processors={Kandinsky6AttnProcessor: NagKandinsky6AttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    negative_text=_negative_text,
)
