"""Guidance in the blocks of ERNIE-Image, which has text and image in one sequence, the image first.

The image's positions begin behind the text that a row has. A negative prompt gets its own. The
blocks take the tokens before the rows, and a modulation for each token.

Shapes: S tokens of a row's sequence, N tokens of the negative prompt, L image tokens, B rows, D
channels, K channels a head.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import ErnieImageTransformer2DModel
from diffusers.models.transformers.transformer_ernie_image import (
    ErnieImageAttention,
    ErnieImageSingleStreamAttnProcessor,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.blocks_hook import Arguments, BlockInputs, EmbeddedText, SequencePlan
from nag.attention.text.negative_text import NegativeText, fill_up


class NagErnieImageAttnProcessor(NagSequenceProcessor):
    """Replaces `ErnieImageSingleStreamAttnProcessor`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(attn, hidden_states, attention_mask, freqs_cis)
        assert freqs_cis is not None
        mask_BS = None if attention_mask is None else attention_mask[:, 0, 0]
        return self._guided(attn, hidden_states, freqs_cis, mask_BS)

    def _rotated(self, tokens: torch.Tensor, rotary: torch.Tensor) -> torch.Tensor:
        """Turn the halves of each head by the angles (rows, tokens, 1, K)."""
        one, other = tokens.chunk(2, dim=-1)
        turned = torch.cat([-other, one], dim=-1)
        return tokens * rotary.cos().to(tokens.dtype) + turned * rotary.sin().to(tokens.dtype)


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, ErnieImageAttention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.layers


def _text(arguments: Arguments) -> torch.Tensor:
    return arguments["text_bth"]


def _image_starts(_model: Any, arguments: Arguments) -> list[int]:
    return [0] * len(arguments["text_bth"])


def _embed(model: Any, arguments: Arguments, text_TD: torch.Tensor) -> EmbeddedText:
    tokens = text_TD[None] if model.text_proj is None else model.text_proj(text_TD[None])
    sizes = (size // model.patch_size for size in arguments["hidden_states"].shape[2:])
    axes = (torch.arange(size, device=tokens.device, dtype=torch.float32) for size in sizes)
    length = torch.tensor([len(text_TD)], device=tokens.device, dtype=torch.float32)
    image_ids = torch.cartesian_prod(length, *axes)
    text_ids = image_ids.new_zeros((len(text_TD), 3))
    text_ids[:, 0] = torch.arange(len(text_TD), device=tokens.device)
    rotary = model.pos_embed(torch.cat([image_ids, text_ids])[None])
    return EmbeddedText(tokens, len(image_ids), rotary)


def _lengthen(args: tuple[Any, ...], kwargs: Arguments, tokens_BND: torch.Tensor) -> BlockInputs:
    """Put the negative prompt behind the sequence, (S, B, D), with the modulation of a row."""
    sequence, rotary, modulations, *rest = args
    number = tokens_BND.shape[1]
    longer = tuple(torch.cat([one, one[:1].expand(number, -1, -1)]) for one in modulations)
    sequence = torch.cat([sequence, tokens_BND.transpose(0, 1)])
    return (sequence, rotary, longer, *rest), kwargs


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return fill_up(encoded)


ADAPTER = Adapter(
    models=(ErnieImageTransformer2DModel,),
    processors={ErnieImageSingleStreamAttnProcessor: NagErnieImageAttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed, _lengthen, token_axis=0),
)
