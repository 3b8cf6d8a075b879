"""Guidance in the text cross-attentions of LTX-2, of the video and of the sound.

Shapes: B batch, L video or audio tokens, T text tokens, D channels, H heads.
"""

from dataclasses import replace
from typing import Any

import torch
from diffusers import LTX2VideoTransformer3DModel
from diffusers.models.transformers.transformer_ltx2 import (
    LTX2Attention,
    LTX2AudioVideoAttnProcessor,
    LTX2PerturbedAttnProcessor,
)

from nag.adapters.adapter import Adapter
from nag.adapters.cross.ltx import NO_ROTARY, NagLTXVideoAttnProcessor
from nag.adapters.text_processor import split_heads
from nag.attention.text.layout import AUDIO_TEXT, VIDEO_TEXT, TextInput
from nag.attention.text.negative_text import NegativeText
from nag.errors import UnsupportedCallError

# Texts from behind the connectors, which have no filler any more, come without a mask.
OF_VIDEO, OF_SOUND = (replace(one, drops_whole_mask=True) for one in (VIDEO_TEXT, AUDIO_TEXT))


class NagLTX2AudioVideoAttnProcessor(NagLTXVideoAttnProcessor):
    """Replaces LTX-2's processors in a cross-attention of the video or the sound to the text.

    They are `LTX2AudioVideoAttnProcessor` and `LTX2PerturbedAttnProcessor`, which does the same as
    long as nothing is perturbed; only self-attentions are.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        query_rotary_emb: Any = None,
        key_rotary_emb: Any = None,
    ) -> torch.Tensor:
        if query_rotary_emb is not None or key_rotary_emb is not None:
            raise UnsupportedCallError(NO_ROTARY)
        output_BLD = self._guide(attn, hidden_states, encoder_hidden_states, attention_mask)
        if attn.to_gate_logits is not None:
            # The gates weigh the heads of the guided output; before guidance they would be undone
            # in part by the bound on its norm.
            gates_BLH = 2.0 * torch.sigmoid(attn.to_gate_logits(hidden_states))
            output_BLD = (split_heads(attn, output_BLD) * gates_BLH.unsqueeze(-1)).flatten(2, 3)
        return attn.to_out[1](attn.to_out[0](output_BLD))


def _is_text_attention(name: str, module: Any) -> bool:
    return isinstance(module, LTX2Attention) and name.endswith((".attn2", ".audio_attn2"))


def _text_of(attention: str) -> TextInput:
    return OF_SOUND if attention.endswith(".audio_attn2") else OF_VIDEO


def _negative_text(pipeline: Any, encoded: Any) -> NegativeText:
    embeds, audio_embeds, mask = pipeline.connectors(
        *encoded[:2], padding_side=pipeline.tokenizer.padding_side
    )
    return NegativeText(embeds, mask, audio_embeds=audio_embeds)


ADAPTER = Adapter(
    models=(LTX2VideoTransformer3DModel,),
    processors=dict.fromkeys(
        (LTX2AudioVideoAttnProcessor, LTX2PerturbedAttnProcessor), NagLTX2AudioVideoAttnProcessor
    ),
    is_text_attention=_is_text_attention,
    texts=(OF_VIDEO, OF_SOUND),
    text_of=_text_of,
    negative_text=_negative_text,
)
