"""Guidance in the blocks of Ideogram 4, which has text and image in one sequence, the text first.

A row has its filler before its text. Text is counted from 0 and the image from a position that no
text reaches, so the image's positions are the same beside every text. The unconditional pass is
that of another transformer, which sees no text and stays as it is.

Shapes: B rows, S tokens of a row's sequence, N tokens of the negative prompt, L image tokens, K
channels a head.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import Ideogram4Transformer2DModel
from diffusers.models.transformers.transformer_ideogram4 import (
    LLM_TOKEN_INDICATOR,
    OUTPUT_IMAGE_INDICATOR,
    Ideogram4Attention,
    Ideogram4AttnProcessor,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.blocks_hook import Arguments, EmbeddedText, SequencePlan
from nag.attention.text.negative_text import NegativeText


class NagIdeogram4AttnProcessor(NagSequenceProcessor):
    """Replaces `Ideogram4AttnProcessor`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        image_rotary_emb: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(attn, hidden_states, attention_mask, image_rotary_emb)
        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.num_heads, attn.head_dim))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        # The last token is the image's: it sees all but the filler.
        mask_BS = attention_mask[:, 0, -1]
        rotary = torch.stack(image_rotary_emb, dim=-1)
        projected = attn.norm_q(query), attn.norm_k(key), value
        return attn.to_out[0](self.lanes.guide(self._attend, projected, rotary, mask_BS))

    def _rotated(self, tokens: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
        """Turn the halves of each head by cosines and sines, (rows, tokens, K, 2)."""
        cosines, sines = rotary.unsqueeze(2).unbind(-1)
        one, other = tokens.chunk(2, dim=-1)
        return tokens * cosines + torch.cat([-other, one], dim=-1) * sines


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Ideogram4Attention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.layers


def _text(arguments: Arguments) -> torch.Tensor:
    return arguments["encoder_hidden_states"]  # with zeros in the place of the image


def _image_starts(_model: Any, arguments: Arguments) -> list[int]:
    return (arguments["indicator"] == OUTPUT_IMAGE_INDICATOR).int().argmax(dim=1).tolist()


def _embed(model: Any, arguments: Arguments, text_TD: torch.Tensor) -> EmbeddedText:
    tokens = model.llm_cond_proj(model.llm_cond_norm(text_TD[None]))
    no_image = torch.zeros(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    tokens = tokens + model.embed_image_indicator(no_image)
    image_ids = arguments["position_ids"][:1, _image_starts(model, arguments)[0] :]
    text_ids = torch.arange(len(text_TD)).to(image_ids)[None, :, None].expand(-1, -1, 3)
    of_both = model.rotary_emb(torch.cat([image_ids, text_ids], dim=1))
    rotary = torch.stack(of_both, dim=-1).to(tokens.dtype)
    return EmbeddedText(tokens, image_ids.shape[1], rotary)


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0], encoded[3] == LLM_TOKEN_INDICATOR)


ADAPTER = Adapter(
    models=(Ideogram4Transformer2DModel,),
    processors={Ideogram4AttnProcessor: NagIdeogram4AttnProcessor},
    is_text_attention=_is_text_attention,
    encodings=({"grid_h": 1, "grid_w": 1},),  # the text is the same beside any image
    negative_text=_negative_text,
    pads_text=False,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed),
)
