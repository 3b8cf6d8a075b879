"""Guidance in the text cross-attentions of Cosmos 1, 2 and 2.5.

Shapes: B batch, L video tokens, T text tokens, I image tokens, D channels, H heads, K channels a
head.
"""

from typing import Any

import torch
from diffusers import CosmosTransformer3DModel
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.transformers.transformer_cosmos import (
    CosmosAttnProcessor2_0,
    CosmosAttnProcessor2_5,
)

from nag.adapters.adapter import Adapter
from nag.adapters.cross_attention import NagAttnProcessor, is_text_attention
from nag.adapters.text_processor import split_heads
from nag.attention.text.layout import TextInput
from nag.errors import UnsupportedCallError

TEXT = TextInput("encoder_hidden_states", "attention_mask")


class NagCosmosAttnProcessor(NagAttnProcessor):
    """Replaces `CosmosAttnProcessor2_0` and `CosmosAttnProcessor2_5` in a cross-attention.

    Where 2.5 has tokens of an image beside the text, the attention to them is added after guidance.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: Any = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        if image_rotary_emb is not None:
            raise UnsupportedCallError(
                "Cosmos's text cross-attention takes no rotary embedding, got one"
            )
        text_BTD, image_BID = _parts(encoder_hidden_states)
        if not self._is_guided(text_BTD):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask)
        text_mask, image_mask = _parts(attention_mask)
        query_BLHK = self._query(attn, hidden_states)
        key_BTHK, value_BTHK = self._key_value(attn, text_BTD, hidden_states.shape[1])
        output_BLD = self.text_concat.guide(
            self._attend, query_BLHK, key_BTHK, value_BTHK, text_mask
        )
        if image_BID is not None:
            output_BLD = output_BLD + self._of_image(attn, hidden_states, image_BID, image_mask)
        return attn.to_out[1](attn.to_out[0](output_BLD))

    def _of_image(
        self, attn: Any, tokens_BLD: torch.Tensor, image_BID: torch.Tensor, mask: Any
    ) -> torch.Tensor:
        query = attn.q_img_norm(split_heads(attn, attn.q_img(tokens_BLD)))
        key = attn.k_img_norm(split_heads(attn, attn.k_img(image_BID)))
        return self._attend(query, key, split_heads(attn, attn.v_img(image_BID)), mask)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        output = dispatch_attention_fn(query, key, value, attn_mask=bias)
        return output.flatten(2, 3).to(query.dtype)


def _parts(argument: Any) -> tuple[Any, Any]:
    """Return what an argument holds for the text and for the image beside it."""
    return argument if isinstance(argument, tuple) else (argument, None)


ADAPTER = Adapter(
    models=(CosmosTransformer3DModel,),
    processors=dict.fromkeys(
        (CosmosAttnProcessor2_0, CosmosAttnProcessor2_5), NagCosmosAttnProcessor
    ),
    is_text_attention=is_text_attention,
    texts=(TEXT,),
)
