"""The guiding processors of Flux 2, of both kinds of blocks, also with kept reference images.

The negative prompt's tokens stand behind the prompt's and before the image.

Klein has a pipeline whose reference images see themselves alone. They stand before the image in its
first step, and from then on their keys and values are kept. No text changes them, so they are not
guided, and both prompts and the image see the same ones.

Shapes: B rows, S tokens of prompt and image, N tokens of the negative prompt, R tokens of reference
images, D channels, H heads, K channels a head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb

from nag.adapters.joint.processor import image_projections, text_projections
from nag.adapters.processor import mask_refusal
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.lanes import Attend
from nag.attention.text_lanes import QueryKeyValue

Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines, each (S + N, K)
_rotate: Any = apply_rotary_emb
FIRST = "extract"  # value of kv_cache_mode in the step that fills the cache


@dataclass(frozen=True, eq=False)
class _References:
    """The reference images of one attention in one call, if they see themselves alone.

    Args:
        cache: their keys and values, or the place of these; None in a call without them.
        num_tokens: tokens of theirs before the image, R; 0 where their keys and values are kept.
    """

    cache: Any = None
    num_tokens: int = 0


NONE = _References()


class _Flux2Processor(NagSequenceProcessor):
    """Base of the processors of both kinds of blocks."""

    def _guided_sequence(
        self, projected: QueryKeyValue, rotary: Rotary | None, references: _References
    ) -> torch.Tensor:
        """Return the output of prompt, negative prompt, references and image, (B, S + N + R, D)."""
        query, key, value = projected
        if rotary is not None:
            query, key = (_rotate(one, rotary, sequence_dim=1) for one in (query, key))
        cache, num_tokens = references.cache, references.num_tokens
        if not num_tokens:
            return self._guided_beside(query, key, value, cache)
        lane = self.lanes.lane
        assert lane is not None
        border = lane.image_starts[0] + lane.num_negative_tokens
        own, behind = slice(border, border + num_tokens), slice(border + num_tokens, None)
        of_references = query[:, own], key[:, own], value[:, own]
        cache.store(of_references[1].clone(), of_references[2].clone())
        seen_alone = self._attend(of_references, None, None)
        query, key, value = (
            torch.cat([one[:, :border], one[:, behind]], dim=1) for one in (query, key, value)
        )
        output = self._guided_beside(query, key, value, cache)
        return torch.cat([output[:, :border], seen_alone, output[:, border:]], dim=1)

    def _guided_beside(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, cache: Any
    ) -> torch.Tensor:
        """Return the output of prompt, negative prompt and image, beside kept ones."""
        lane = self.lanes.lane
        assert lane is not None
        text_length, num_negative = lane.image_starts[0], lane.num_negative_tokens
        query, key, value = (
            _swapped(one, text_length, num_negative) for one in (query, key, value)
        )
        attend = self._attend if cache is None else self._attend_to(cache)
        output = self.lanes.guide(attend, (query, key, value), None, None)
        return _swapped(output, text_length, lane.num_image_tokens)

    def _attend_to(self, cache: Any) -> Attend:
        """Return the attention to a call's own tokens and to the references' as well."""
        kept_key, kept_value = cache.get()

        def attend(
            projected: QueryKeyValue, rotary: Any, mask: torch.Tensor | None
        ) -> torch.Tensor:
            query, key, value = projected
            key, value = torch.cat([key, kept_key], dim=1), torch.cat([value, kept_value], dim=1)
            return self._attend((query, key, value), rotary, mask)

        return attend


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
        if not self._is_guided(encoder_hidden_states.shape[1] + hidden_states.shape[1]):
            return self.stock(
                attn, hidden_states, encoder_hidden_states, attention_mask, image_rotary_emb
            )
        _refuse_mask(self.block, attention_mask)
        return self._call(attn, hidden_states, encoder_hidden_states, image_rotary_emb, NONE)

    def _call(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        rotary: Rotary | None,
        references: _References,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        length = encoder_hidden_states.shape[1]
        query, key, value = (
            torch.cat(pair, dim=1)
            for pair in zip(
                text_projections(attn, encoder_hidden_states),
                image_projections(attn, hidden_states),
                strict=True,
            )
        )
        output = self._guided_sequence((query, key, value), rotary, references)
        text, image = output[:, :length], output[:, length:]
        return attn.to_out[1](attn.to_out[0](image)), attn.to_add_out(text)


class NagFlux2KVAttnProcessor(NagFlux2AttnProcessor):
    """Replaces `Flux2KVAttnProcessor` in two-stream blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        kv_cache: Any = None,
        kv_cache_mode: str | None = None,
        num_ref_tokens: int = 0,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        references = _references(kv_cache, kv_cache_mode, num_ref_tokens)
        num_tokens = encoder_hidden_states.shape[1] + hidden_states.shape[1]
        if not self._is_guided(num_tokens - references.num_tokens):
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                image_rotary_emb,
                kv_cache,
                kv_cache_mode,
                num_ref_tokens,
            )
        _refuse_mask(self.block, attention_mask)
        return self._call(attn, hidden_states, encoder_hidden_states, image_rotary_emb, references)


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
        _refuse_mask(self.block, attention_mask)
        return self._call(attn, hidden_states, image_rotary_emb, NONE)

    def _call(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        rotary: Rotary | None,
        references: _References,
    ) -> torch.Tensor:
        projected = attn.to_qkv_mlp_proj(hidden_states)
        qkv, feedforward = projected.tensor_split([3 * attn.inner_dim], dim=-1)
        query, key, value = (one.unflatten(-1, (-1, attn.head_dim)) for one in qkv.chunk(3, dim=-1))
        output = self._guided_sequence(
            (attn.norm_q(query), attn.norm_k(key), value), rotary, references
        )
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(feedforward)], dim=-1))


class NagFlux2KVParallelSelfAttnProcessor(NagFlux2ParallelSelfAttnProcessor):
    """Replaces `Flux2KVParallelSelfAttnProcessor` in single-stream blocks."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Rotary | None = None,
        kv_cache: Any = None,
        kv_cache_mode: str | None = None,
        num_txt_tokens: int = 0,
        num_ref_tokens: int = 0,
    ) -> torch.Tensor:
        references = _references(kv_cache, kv_cache_mode, num_ref_tokens)
        if not self._is_guided(hidden_states.shape[1] - references.num_tokens):
            return self.stock(
                attn,
                hidden_states,
                attention_mask,
                image_rotary_emb,
                kv_cache,
                kv_cache_mode,
                num_txt_tokens,
                num_ref_tokens,
            )
        _refuse_mask(self.block, attention_mask)
        return self._call(attn, hidden_states, image_rotary_emb, references)


def _references(cache: Any, mode: str | None, num_tokens: int) -> _References:
    """Return the reference images of a call by the arguments of its attentions."""
    is_first = mode == FIRST and num_tokens > 0
    if cache is None or not (is_first or mode == "cached"):
        return NONE
    return _References(cache, num_tokens if is_first else 0)


def _swapped(sequence: torch.Tensor, start: int, length: int) -> torch.Tensor:
    """Return a sequence with `length` tokens from `start` behind all that follow them."""
    first, moved, rest = sequence.tensor_split([start, start + length], dim=1)
    return torch.cat([first, rest, moved], dim=1)


def _refuse_mask(block: str, attention_mask: torch.Tensor | None) -> None:
    if attention_mask is not None:
        raise mask_refusal(block)
