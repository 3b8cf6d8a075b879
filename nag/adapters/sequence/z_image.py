"""Guidance in the blocks of Z-Image, which has text and image in one sequence, the image first.

The prompt of a row is filled up to a multiple of 32 tokens, which attention takes for text, and the
image's positions begin behind it. A negative prompt gets its own of both.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import ZImageTransformer2DModel
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_z_image import ZSingleStreamAttnProcessor
from torch.nn.utils.rnn import pad_sequence

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.blocks_hook import Arguments, EmbeddedText, SequencePlan
from nag.attention.text.layout import TextInput
from nag.attention.text.negative_text import NegativeText, fill_up
from nag.errors import NagTextError


class NagZSingleStreamAttnProcessor(NagSequenceProcessor):
    """Replaces `ZSingleStreamAttnProcessor` in the blocks that take text and image."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, freqs_cis)
        assert freqs_cis is not None
        return self._guided(attn, hidden_states, freqs_cis, attention_mask)


def _is_text_attention(name: str, module: Any) -> bool:
    # The refiners' attentions, which see text alone or the image alone, lie elsewhere.
    return name.startswith("layers.") and isinstance(module, Attention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.layers


def _text(arguments: Arguments) -> torch.Tensor:
    texts = arguments["cap_feats"]
    if not torch.is_tensor(texts[0]):
        raise NagTextError("a call with images among the conditions cannot be guided")
    return pad_sequence(texts, batch_first=True)


def _image_starts(_model: Any, arguments: Arguments) -> list[int]:
    sizes = {tuple(image.shape) for image in arguments["x"]}
    if len(sizes) > 1:
        raise NagTextError(f"the images of a guided call must have one size, got {sorted(sizes)}")
    return [0] * len(arguments["x"])


def _embed(model: Any, arguments: Arguments, text_TD: torch.Tensor) -> EmbeddedText:
    _, (filled,), _, (image_ids,), (text_ids,), _, (is_filler,) = model.patchify_and_embed(
        arguments["x"][:1], [text_TD], arguments["patch_size"], arguments["f_patch_size"]
    )
    tokens = torch.where(is_filler[:, None], model.cap_pad_token, model.cap_embedder(filled))[None]
    rotary = model.rope_embedder(torch.cat([image_ids, text_ids[: len(filled)]]))[None]
    for block in model.context_refiner:
        tokens = block(tokens, None, rotary[:, len(image_ids) :])
    return EmbeddedText(tokens, len(image_ids), rotary)


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return fill_up(encoded[0])


ADAPTER = Adapter(
    models=(ZImageTransformer2DModel,),
    processors={ZSingleStreamAttnProcessor: NagZSingleStreamAttnProcessor},
    is_text_attention=_is_text_attention,
    texts=(TextInput("cap_feats"),),
    negative_text=_negative_text,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed),
)
