"""Guidance in the text cross-attentions of transformers with diffusers' own `Attention` class.

PixArt, Sana, Sana Video, Latte and Allegro. They differ in their stock processors alone.

Shapes: B batch, L image or video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers import (
    AllegroTransformer3DModel,
    LatteTransformer3DModel,
    PixArtTransformer2DModel,
    SanaTransformer2DModel,
    SanaVideoTransformer3DModel,
)
from diffusers.models.attention_processor import AllegroAttnProcessor2_0
from diffusers.models.transformers import sana_transformer, transformer_sana_video

from nag.adapters.adapter import Adapter, embeds_and_mask
from nag.adapters.cross_attention import (
    PROCESSORS,
    NagAttnProcessor,
    is_text_attention,
    tokens_of,
)
from nag.adapters.text_processor import split_heads
from nag.attention.kept_projections import KeyValue
from nag.attention.text.negative_text import NegativeText


class NagSanaAttnProcessor(NagAttnProcessor):
    """Replaces `SanaAttnProcessor2_0`, which norms queries and keys across heads."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        del temb  # the stock processor takes none
        if not self._is_guided(encoder_hidden_states):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask)
        return self._call(attn, hidden_states, hidden_states, encoder_hidden_states, attention_mask)

    def _query(self, attn: Any, tokens_BLD: torch.Tensor) -> torch.Tensor:
        query_BLD = attn.to_q(tokens_BLD)
        return split_heads(attn, query_BLD if attn.norm_q is None else attn.norm_q(query_BLD))

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        key_BTD = attn.to_k(text_BTD)
        key_BTD = key_BTD if attn.norm_k is None else attn.norm_k(key_BTD)
        return split_heads(attn, key_BTD), split_heads(attn, attn.to_v(text_BTD))


class NagAllegroAttnProcessor(NagAttnProcessor):
    """Replaces `AllegroAttnProcessor2_0`, which rotates nothing and norms nothing here."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb, image_rotary_emb
            )
        tokens_BLD = tokens_of(attn, hidden_states, temb)
        return self._call(attn, hidden_states, tokens_BLD, encoder_hidden_states, attention_mask)


def _masked_or_cut(pipeline: Any, encoded: Any) -> NegativeText:
    # Latte has no masks: it cuts the text to its tokens.
    is_latte = isinstance(getattr(pipeline, "transformer", None), LatteTransformer3DModel)
    return NegativeText(encoded[0]) if is_latte else embeds_and_mask(pipeline, encoded)


ADAPTER = Adapter(
    models=(
        AllegroTransformer3DModel,
        LatteTransformer3DModel,
        PixArtTransformer2DModel,
        SanaTransformer2DModel,
        SanaVideoTransformer3DModel,
    ),
    processors={
        **PROCESSORS,
        sana_transformer.SanaAttnProcessor2_0: NagSanaAttnProcessor,
        transformer_sana_video.SanaAttnProcessor2_0: NagSanaAttnProcessor,
        AllegroAttnProcessor2_0: NagAllegroAttnProcessor,
    },
    is_text_attention=is_text_attention,
    negative_text=_masked_or_cut,
)
