"""Guidance in the blocks of Lumina 2, which has text and image in one sequence, the text first.

The image's positions begin behind the text that a row has. A negative prompt gets its own.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import Lumina2Transformer2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_lumina2 import Lumina2AttnProcessor2_0

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.blocks_hook import Arguments, EmbeddedText, SequencePlan


class NagLumina2AttnProcessor(NagSequenceProcessor):
    """Replaces `Lumina2AttnProcessor2_0` in the blocks that take text and image."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        assert image_rotary_emb is not None
        return self._guided(attn, hidden_states, image_rotary_emb, attention_mask)


def _is_text_attention(name: str, module: Any) -> bool:
    # The refiners' attentions, which see text alone or the image alone, lie elsewhere.
    return name.startswith("layers.") and isinstance(module, Attention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.layers


def _text(arguments: Arguments) -> torch.Tensor:
    return arguments["encoder_hidden_states"]


def _image_starts(_model: Any, arguments: Arguments) -> list[int]:
    return arguments["encoder_attention_mask"].sum(dim=1).tolist()


def _embed(model: Any, arguments: Arguments, text_TD: torch.Tensor) -> EmbeddedText:
    tokens = model.time_caption_embed.caption_embedder(text_TD[None])
    is_text = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
    _, of_text, of_image, *_ = model.rope_embedder(arguments["hidden_states"][:1], is_text)
    for block in model.context_refiner:
        tokens = block(tokens, None, of_text)
    return EmbeddedText(tokens, of_image.shape[1], torch.cat([of_image, of_text], dim=1))


ADAPTER = Adapter(
    models=(Lumina2Transformer2DModel,),
    processors={Lumina2AttnProcessor2_0: NagLumina2AttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=embeds_and_mask,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed),
)
