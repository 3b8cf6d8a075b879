"""Guidance in the attentions of Flux 2: two-stream blocks, then single-stream blocks.

Its modulation knows the timestep alone, and the image's positions are the same beside every text.
So the negative prompt's tokens stand behind the prompt's and before the image.

Shapes: B rows, S tokens of prompt and image, N tokens of the negative prompt, D channels, H heads,
K channels a head.
"""

from typing import Any

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.models.embeddings import apply_rotary_emb
from diffusers.models.transformers.transformer_flux2 import (
    Flux2Attention,
    Flux2AttnProcessor,
    Flux2ParallelSelfAttention,
    Flux2ParallelSelfAttnProcessor,
)

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter
from nag.adapters.joint.processor import image_projections, text_projections
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.text_hook import TextStreamPlan
from nag.attention.text_lanes import QueryKeyValue

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (S + N, K)
_rotate: Any = apply_rotary_emb


class _Flux2Processor(NagSequenceProcessor):
    """Base of the processors of both kinds of blocks."""

    def _guided_sequence(self, projected: QueryKeyValue, rotary: Rotary | None) -> torch.Tensor:
        """Return the output of prompt, negative prompt and image, (B, S + N, D)."""
        query, key, value = projected
        if rotary is not None:
            query, key = (_rotate(one, rotary, sequence_dim=1) for one in (query, key))
        lane = self.lanes.lane
        assert lane is not None
        text_length, num_negative = lane.image_starts[0], lane.num_negative_tokens
        query, key, value = (
            _swapped(one, text_length, num_negative) for one in (query, key, value)
        )
        output = self.lanes.guide(self._attend, (query, key, value), None, None)
        return _swapped(output, text_length, lane.num_image_tokens)


class NagFlux2AttnProcessor(_Flux2Processor):
    """Replaces `Flux2AttnProcessor` in two-stream blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = encoder_hidden_states.shape[1]
        if not self._is_guided(length + hidden_states.shape[1]):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        _refuse_mask(attention_mask)
        query, key, value = (
            torch.cat(pair, dim=1)
            for pair in zip(
                text_projections(attn, encoder_hidden_states),
                image_projections(attn, hidden_states),
                strict=True,
            )
        )
        output = self._guided_sequence((query, key, value), image_rotary_emb)
        text, image = output[:, :length], output[:, length:]
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


class NagFlux2ParallelSelfAttnProcessor(_Flux2Processor):
    """Replaces `Flux2ParallelSelfAttnProcessor` in single-stream blocks, with their feedforward."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(attn, hidden_states, attention_mask, image_rotary_emb)
        _refuse_mask(attention_mask)
        projected = attn.to_qkv_mlp_proj(hidden_states)
        qkv, feedforward = projected.tensor_split([3 * attn.inner_dim], dim=-1)
        query, key, value = (one.unflatten(-1, (-1, attn.head_dim)) for one in qkv.chunk(3, dim=-1))
        output = self._guided_sequence(
            (attn.norm_q(query), attn.norm_k(key), value), image_rotary_emb
        )
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(feedforward)], dim=-1))


def _swapped(sequence: torch.Tensor, start: int, length: int) -> torch.Tensor:
    """Return a sequence with `length` tokens from `start` behind all that follow them."""
    first, moved, rest = sequence.tensor_split([start, start + length], dim=1)
    return torch.cat([first, rest, moved], dim=1)


def _refuse_mask(attention_mask: torch.Tensor | None) -> None:
    if attention_mask is not None:
        raise NotImplementedError("the attention of Flux 2 takes no mask, got one")


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, Flux2Attention | Flux2ParallelSelfAttention)


def _ids_of(ids: torch.Tensor, length: int) -> torch.Tensor:
    """Return the positions of a text: the last axis counts, and the prompt's others are alike."""
    of_text = ids[..., :1, :].repeat_interleave(length, dim=-2)
    of_text[..., -1] = torch.arange(length, device=ids.device)
    return of_text


def _refusal(arguments: dict[str, Any]) -> str | None:
    if arguments.get("kv_cache_mode") is None:
        return None
    return "keys and values of the reference images are kept from step to step (kv_cache_mode)"


ADAPTER = Adapter(
    models=(Flux2Transformer2DModel,),
    processors={
        Flux2AttnProcessor: NagFlux2AttnProcessor,
        Flux2ParallelSelfAttnProcessor: NagFlux2ParallelSelfAttnProcessor,
    },
    is_text_attention=_is_text_attention,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=TextStreamPlan("txt_ids", _ids_of, _refusal),
)
