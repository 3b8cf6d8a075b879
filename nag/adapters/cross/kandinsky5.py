"""Guidance in the text cross-attentions of Kandinsky 5.

Its text passes through blocks of its own before the cross-attentions. There each prompt attends to
itself alone; the pooled text, which modulates these blocks, is that of the prompt for both.

Shapes: B batch, L visual tokens, T text tokens of both prompts, D channels, H heads, K channels a
head.
"""

from typing import Any

import torch
from diffusers import Kandinsky5Transformer3DModel
from diffusers.models.transformers.transformer_kandinsky import (
    Kandinsky5Attention,
    Kandinsky5AttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.text_processor import NagTextProcessor
from nag.attention.kept_projections import KeyValue
from nag.attention.text.layout import TextInput
from nag.errors import UnsupportedCallError

TEXT = TextInput("encoder_hidden_states", "encoder_attention_mask", positions="text_rope_pos")


class NagKandinsky5AttnProcessor(NagTextProcessor):
    """Replaces `Kandinsky5AttnProcessor` in the attentions of the text, and in those to it."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        rotary_emb: torch.Tensor | None = None,
        sparse_params: Any = None,
    ) -> torch.Tensor:
        text_BTD = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        layout = self.text_concat.layout
        if text_BTD.shape[1] != layout.length:
            raise self._refuse_text(text_BTD.shape[1])
        if not layout.negative_length:
            return self.stock(attn, hidden_states, encoder_hidden_states, rotary_emb, sparse_params)
        if encoder_hidden_states is None:
            return self._attend_within(attn, hidden_states, rotary_emb)
        if rotary_emb is not None or sparse_params is not None:
            raise UnsupportedCallError(
                "Kandinsky's text cross-attention takes neither rotary embedding nor sparse "
                "attention, got one"
            )
        key_BTHK, value_BTHK = self._key_value(attn, text_BTD, hidden_states.shape[1])
        query_BLHK = _normed(attn.query_norm, _split_heads(attn, attn.to_query(hidden_states)))
        output_BLD = self.text_concat.guide(self._attend, query_BLHK, key_BTHK, value_BTHK)
        return attn.out_layer(output_BLD)

    def _attend_within(self, attn: Any, text_BTD: torch.Tensor, rotary_emb: Any) -> torch.Tensor:
        """Let each of the two prompts attend to itself."""
        border = self.text_concat.layout.positive_length
        prompts = (slice(0, border), slice(border, None))
        outputs = [
            self.stock(attn, text_BTD[:, tokens], None, rotary_emb[:, tokens]) for tokens in prompts
        ]
        return torch.cat(outputs, dim=1)

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTHK = _normed(attn.key_norm, _split_heads(attn, attn.to_key(text_BTD)))
        return key_BTHK, _split_heads(attn, attn.to_value(text_BTD))


def _split_heads(attn: Any, projected: torch.Tensor) -> torch.Tensor:
    return projected.unflatten(2, (attn.num_heads, -1))


def _normed(norm: Any, projected: torch.Tensor) -> torch.Tensor:
    return norm(projected.float()).type_as(projected)


def _is_text_attention(name: str, module: Any) -> bool:
    of_text = name.startswith("text_transformer_blocks.") or name.endswith(".cross_attention")
    return isinstance(module, Kandinsky5Attention) and of_text


ADAPTER = Adapter(
    models=(Kandinsky5Transformer3DModel,),
    processors={Kandinsky5AttnProcessor: NagKandinsky5AttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TEXT,),
    pads_text=False,
)
