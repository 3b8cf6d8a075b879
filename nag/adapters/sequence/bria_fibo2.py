"""Guidance in the blocks of Bria's Fibo 2, which has text and image in one sequence.

The text enters twice. A Perceiver makes a few gist tokens of it, as many as its length asks for,
which run through the blocks beside the image and the images to edit; and some blocks attend to
hidden states of the text encoder. The negative prompt has gist tokens of its own, which read its
own hidden states. Image and images to edit are guided in both attentions. All have the same
positions beside every text.

Shapes: S tokens of a row's sequence, N gist tokens of the negative prompt, L tokens of the image
and of the images to edit, T text tokens, C channels of a text, D channels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import BriaFibo2Transformer2DModel
from diffusers.models.transformers.transformer_bria_fibo2 import (
    BriaFibo2Attention,
    BriaFibo2AttnProcessor,
    compute_gist_count,
)
from torch.nn import functional

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.kept_projections import KeyValue
from nag.attention.sequence.blocks_hook import (
    Arguments,
    BlockInputs,
    EmbeddedText,
    SequencePlan,
    append_tokens,
)
from nag.attention.text.negative_text import NegativeText


class NagBriaFibo2AttnProcessor(NagSequenceProcessor):
    """Replaces `BriaFibo2AttnProcessor` in the attentions of the blocks, of both kinds."""

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
        if encoder_hidden_states is None:
            assert freqs_cis is not None
            return self._guided(attn, hidden_states, freqs_cis, attention_mask)
        lane = self.lanes.lane
        assert lane is not None
        output = self.lanes.guide_cross(
            self._attend,
            attn.norm_q(attn.to_q(hidden_states).unflatten(-1, (attn.heads, -1))),
            _key_value(attn, encoder_hidden_states),
            attention_mask,
            _key_value(attn, lane.texts[self.block]),
        )
        return attn.to_out[0](output)


def _key_value(attn: Any, text_BTC: torch.Tensor) -> KeyValue:
    key, value = (
        layer(text_BTC).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_k, attn.to_v)
    )
    return attn.norm_k(key), value


def _is_text_attention(name: str, module: Any) -> bool:
    # The attentions of the Perceiver see text alone, those of the refiner images alone.
    return name.startswith("layers.") and isinstance(module, BriaFibo2Attention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.layers


def _text(arguments: Arguments) -> torch.Tensor:
    return arguments["encoder_hidden_states"].transpose(1, 2)  # a token has several hidden states


def _num_gist_tokens(model: Any, lengths: list[int]) -> list[int]:
    config = model.config
    return compute_gist_count(
        lengths,
        min_gist=config.min_num_gist_tokens,
        max_gist=config.max_num_gist_tokens,
        gist_step=config.gist_step,
        min_text_len=config.gist_min_text_len,
        max_text_len=config.gist_max_text_len,
    )


def _image_starts(model: Any, arguments: Arguments) -> list[int]:
    text_BTSC, mask_BT = _text(arguments), arguments["encoder_attention_mask"]
    num_rows, length = text_BTSC.shape[:2]
    lengths = [length] * num_rows if mask_BT is None else mask_BT.sum(dim=1).tolist()
    counts = _num_gist_tokens(model, lengths)
    # The gist tokens of texts that need as many come first; others are filled up, and come last.
    return [counts[0] if min(counts) == max(counts) else 0] * num_rows


def _image_ids(model: Any, arguments: Arguments) -> torch.Tensor:
    """Return the positions of the image and of the images to edit behind it, (L, 3)."""
    images = [arguments["hidden_states"], *(arguments["context_latents"] or ())]
    plane, patch = model.config.max_num_gist_tokens + 1, model.config.patch_size
    grids = [
        model.create_coordinate_grid(
            (1, image.shape[2] // patch, image.shape[3] // patch), (plane + k, 0, 0), image.device
        )
        for k, image in enumerate(images)
    ]
    return torch.cat([grid.flatten(0, 2) for grid in grids])


def _embed(model: Any, arguments: Arguments, text: torch.Tensor) -> EmbeddedText:
    of_perceiver, *of_blocks = text.transpose(0, 1)[:, None]
    (count,) = _num_gist_tokens(model, [len(text)])
    image_ids = _image_ids(model, arguments)
    gist_ids = model.create_coordinate_grid((count, 1, 1), (1, 0, 0), image_ids.device)
    rotary = model.rope_embedder(torch.cat([image_ids, gist_ids.flatten(0, 2)]))[None]
    texts = {
        model.layers[layer].cross_attention.processor.block: one
        for layer, one in zip(model.config.injection_layer_ids, of_blocks, strict=True)
    }
    return EmbeddedText(model.perceiver(of_perceiver, count), len(image_ids), rotary, texts)


def _lengthen(args: tuple[Any, ...], kwargs: Arguments, tokens_BND: torch.Tensor) -> BlockInputs:
    """Put the negative prompt behind the sequence, modulated as text: it is without noise."""
    is_noisy = functional.pad(kwargs["noise_mask"], (0, tokens_BND.shape[1]))
    return append_tokens(args, kwargs | {"noise_mask": is_noisy}, tokens_BND)


def _negative_text(_pipeline: Any, encoded: Any) -> NegativeText:
    return NegativeText(encoded[0].transpose(1, 2), encoded[1])


ADAPTER = Adapter(
    models=(BriaFibo2Transformer2DModel,),
    processors={BriaFibo2AttnProcessor: NagBriaFibo2AttnProcessor},
    is_text_attention=_is_text_attention,
    negative_text=_negative_text,
    needs_no_image=True,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed, _lengthen),
)
