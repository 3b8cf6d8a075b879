"""Guidance in models made from Wan, whose attention diffusers keeps as copies of Wan's.

They are SkyReels V2, Wan Animate, ChronoEdit, Helios and AnyFlow. The copies compute as Wan's do,
but for the image tokens, which Helios and AnyFlow do not have. The blocks of Wan Animate that
attend to a face have a class of their own; they attend to no text.
"""

from typing import Any

import torch
from diffusers import (
    AnyFlowTransformer3DModel,
    ChronoEditTransformer3DModel,
    HeliosTransformer3DModel,
    SkyReelsV2Transformer3DModel,
    WanAnimateTransformer3DModel,
)
from diffusers.models.transformers import transformer_chronoedit, transformer_wan_animate
from diffusers.models.transformers.transformer_anyflow import (
    AnyFlowAttention,
    AnyFlowCrossAttnProcessor,
)
from diffusers.models.transformers.transformer_helios import HeliosAttention, HeliosAttnProcessor
from diffusers.models.transformers.transformer_skyreels_v2 import (
    SkyReelsV2Attention,
    SkyReelsV2AttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.cross.wan import NagWanAttnProcessor
from nag.adapters.text_processor import split_heads
from nag.errors import UnsupportedCallError

ATTENTIONS = (
    SkyReelsV2Attention,
    transformer_wan_animate.WanAttention,
    transformer_chronoedit.WanAttention,
    HeliosAttention,
)


class NagTextAloneAttnProcessor(NagWanAttnProcessor):
    """Replaces the processors of Helios and AnyFlow in a cross-attention: it has text alone.

    A call without guidance is left to the stock processor.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        rotary_emb: Any = None,
        original_context_length: int | None = None,
    ) -> torch.Tensor:
        del original_context_length  # Helios's self-attention reads it
        if attention_mask is not None or rotary_emb is not None:
            raise UnsupportedCallError(
                f"the text cross-attention of {type(attn).__name__} takes neither mask nor rotary "
                "embedding, got one"
            )
        if not self.text_concat.is_guiding:
            return self.stock(attn, hidden_states, encoder_hidden_states)
        length = encoder_hidden_states.shape[1]
        if length != self.text_concat.layout.length:
            raise self._refuse_text(length)
        query_BLHK = split_heads(attn, attn.norm_q(attn.to_q(hidden_states)))
        key_BTHK, value_BTHK = self._key_value(attn, encoder_hidden_states, hidden_states.shape[1])
        output_BLD = self.text_concat.guide(self._attend, query_BLHK, key_BTHK, value_BTHK)
        return attn.to_out[1](attn.to_out[0](output_BLD))


def _is_text_attention(name: str, module: Any) -> bool:
    if isinstance(module, AnyFlowAttention):  # both attentions of a block are of this class
        return name.endswith("attn2")
    return isinstance(module, ATTENTIONS) and module.is_cross_attention


ADAPTER = Adapter(
    models=(
        SkyReelsV2Transformer3DModel,
        WanAnimateTransformer3DModel,
        ChronoEditTransformer3DModel,
        HeliosTransformer3DModel,
        AnyFlowTransformer3DModel,
    ),
    processors={
        SkyReelsV2AttnProcessor: NagWanAttnProcessor,
        transformer_wan_animate.WanAttnProcessor: NagWanAttnProcessor,
        transformer_chronoedit.WanAttnProcessor: NagWanAttnProcessor,
        HeliosAttnProcessor: NagTextAloneAttnProcessor,
        AnyFlowCrossAttnProcessor: NagTextAloneAttnProcessor,
    },
    is_text_attention=_is_text_attention,
)
