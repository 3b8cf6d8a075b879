"""Guidance in the blocks of Qwen-Image 2.1, which has text and image in one sequence, text first.

A token of the text sees those before it and never the image; the image sees all. So the pipeline
keeps the text's keys and values from its first step on, and later calls take the image alone. The
negative prompt runs through the blocks in each step: its few tokens cost little.

Shapes: B rows, S tokens of a row's sequence, L image tokens, N tokens of the negative prompt, K
channels a head.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import QwenImage21Transformer2DModel
from diffusers.models.transformers.transformer_qwenimage21 import (
    QwenImage21Attention,
    QwenImage21AttnProcessor,
    QwenImage21FlexAttnProcessor,
)
from torch.nn import functional

from nag.adapters.adapter import AUTHORS_FOR_FLUX, Adapter, embeds_and_mask
from nag.adapters.joint.processor import attend_as
from nag.adapters.sequence.processor import NagSequenceProcessor
from nag.attention.sequence.blocks_hook import Arguments, BlockInputs, EmbeddedText, SequencePlan
from nag.attention.text.layout import TextInput
from nag.attention.text_lanes import QueryKeyValue
from nag.errors import NagTextError


class NagQwenImage21AttnProcessor(NagSequenceProcessor):
    """Replaces `QwenImage21AttnProcessor`."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: Any = None,
        rotary_emb: torch.Tensor | None = None,
        layer_cache: Any = None,
        kv_cache_mode: str | None = None,
        cache_write_slice: slice | None = None,
        segments: list[tuple[int, int, bool]] | None = None,
        key_valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(hidden_states.shape[1]):
            return self.stock(
                attn,
                hidden_states,
                attention_mask,
                rotary_emb,
                layer_cache,
                kv_cache_mode,
                cache_write_slice,
                segments,
                key_valid,
            )
        lane = self.lanes.lane
        assert lane is not None
        query, key, value = (
            layer(hidden_states).unflatten(-1, (-1, attn.inner_dim // attn.heads))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        projected = attn.norm_q(query).to(value.dtype), attn.norm_k(key).to(value.dtype), value
        is_cached = kv_cache_mode == "cached"
        if is_cached:
            key_valid = None if attention_mask is None else attention_mask[:, 0, 0]
        prompt = _Prompt(rotary_emb, layer_cache, kv_cache_mode, cache_write_slice, key_valid)
        output = self.lanes.guide(self._attend, projected, prompt, None)
        return attn.to_out[1](attn.to_out[0](output))

    def _attend(
        self, projected: QueryKeyValue, rotary: Any, mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Attend in the call's sequence, text first, or in the lane, image first."""
        if isinstance(rotary, _Prompt):
            return self._attend_to_prompt(projected, rotary)
        lane = self.lanes.lane
        assert lane is not None
        query, key, value = projected
        query, key = self._rotated(query, rotary), self._rotated(key, rotary)
        length = lane.num_image_tokens
        of_keys = None if mask is None else mask[:, None, None]
        image = attend_as(self.stock, query[:, :length], key, value, of_keys)
        negative = query[:, length:], key[:, length:], value[:, length:]
        return torch.cat([image, self._attend_causally(negative, None)], dim=1)

    def _attend_to_prompt(self, projected: QueryKeyValue, prompt: "_Prompt") -> torch.Tensor:
        lane = self.lanes.lane
        assert lane is not None
        query, key, value = projected
        if prompt.rotary is not None:
            query, key = (self._rotated(one, prompt.rotary[None]) for one in (query, key))
        text_length, of_keys = lane.image_starts[0], prompt.key_valid
        text = query[:, :text_length], key[:, :text_length], value[:, :text_length]
        key, value = prompt.with_kept(key, value)
        image = attend_as(
            self.stock,
            query[:, text_length:],
            key,
            value,
            None if of_keys is None else of_keys[:, None, None],
        )
        if not text_length:  # its keys are kept from an earlier call
            return image
        return torch.cat([self._attend_causally(text, of_keys), image], dim=1)

    def _attend_causally(self, text: QueryKeyValue, valid: torch.Tensor | None) -> torch.Tensor:
        """Attend from each token of a text to those up to it.

        Args:
            text: queries, keys and values.
            valid: True for each token that is text; None if all are.
        """
        length = text[0].shape[1]
        is_seen = torch.ones(length, length, dtype=torch.bool, device=text[0].device).tril()
        if valid is not None:
            is_seen = is_seen & valid[:, None, None, :length]
        return attend_as(self.stock, *text, is_seen if is_seen.ndim == 4 else is_seen[None, None])


class NagQwenImage21FlexAttnProcessor(NagQwenImage21AttnProcessor, QwenImage21FlexAttnProcessor):
    """Replaces `QwenImage21FlexAttnProcessor`, for which the model makes another mask."""


@dataclass(frozen=True, eq=False)
class _Prompt:
    """The arguments of an attention that belong to the call's own sequence."""

    rotary: torch.Tensor | None  # (S, K / 2)
    cache: Any
    cache_mode: str | None
    kept: slice | None
    key_valid: torch.Tensor | None  # for the kept keys and those of the sequence

    def with_kept(
        self, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the text's keys and values, or return those behind the kept ones."""
        if self.cache is None:
            return key, value
        if self.cache_mode == "cached":
            kept_key, kept_value = self.cache.get()
            return torch.cat([kept_key, key], dim=1), torch.cat([kept_value, value], dim=1)
        self.cache.store(key[:, self.kept].clone(), value[:, self.kept].clone())
        return key, value


def _is_text_attention(_name: str, module: Any) -> bool:
    return isinstance(module, QwenImage21Attention)


def _blocks(model: Any) -> Iterable[torch.nn.Module]:
    return model.transformer_blocks


def _text(arguments: Arguments) -> torch.Tensor:
    if len(arguments["img_shapes"][0]) > 1:
        raise NagTextError("a call with images among the conditions cannot be guided")
    return arguments["encoder_hidden_states"]


def _image_starts(_model: Any, arguments: Arguments) -> list[int]:
    num_rows, length = arguments["encoder_hidden_states"].shape[:2]
    return [0 if arguments["kv_cache_mode"] == "cached" else length] * num_rows


def _embed(model: Any, arguments: Arguments, text_TD: torch.Tensor) -> EmbeddedText:
    tokens = model.txt_in(text_TD[None])
    ((_, height, width),) = arguments["img_shapes"][0]
    rotary = _rotary(model.pos_embed, len(text_TD), height, width)
    return EmbeddedText(tokens, height * width, rotary[None].to(tokens.device))


def _rotary(rope: Any, length: int, height: int, width: int) -> torch.Tensor:
    """Return the rotary embedding of an image and of the text before it, (L + N, K / 2).

    The model's own function cannot be compiled, and the first block may be. The model has called
    it before that block, so its tables lie on the model's device.

    Args:
        rope: the model's rotary embedding.
        length: tokens of the text, N.
        height: rows of the image's tokens.
        width: columns of the image's tokens.
    """
    frames, rows, columns = rope.freqs
    text = torch.cat([table[:length] for table in rope.freqs], dim=-1)
    image = [
        frames[length].expand(height, width, -1),
        _centred(rows, height)[:, None].expand(-1, width, -1),
        _centred(columns, width).expand(height, -1, -1),
    ]
    return torch.cat([torch.cat(image, dim=-1).flatten(0, 1), text])


def _centred(table: torch.Tensor, count: int) -> torch.Tensor:
    """Return the entries of positions around 0, the negative ones at the table's end."""
    after = count // 2
    return torch.cat([table[len(table) - (count - after) :], table[:after]])


def _lengthen(args: tuple[Any, ...], kwargs: Arguments, tokens_BND: torch.Tensor) -> BlockInputs:
    """Put the negative prompt behind the sequence, as further text: not of the target image."""
    longer = {"hidden_states": torch.cat([kwargs["hidden_states"], tokens_BND], dim=1)}
    is_target = kwargs["target_token_mask"]
    if is_target is not None:
        longer["target_token_mask"] = functional.pad(is_target, (0, tokens_BND.shape[1]))
    return args, kwargs | longer


ADAPTER = Adapter(
    models=(QwenImage21Transformer2DModel,),
    processors={
        QwenImage21AttnProcessor: NagQwenImage21AttnProcessor,
        QwenImage21FlexAttnProcessor: NagQwenImage21FlexAttnProcessor,
    },
    is_text_attention=_is_text_attention,
    texts=(TextInput("encoder_hidden_states", "encoder_hidden_states_mask"),),
    negative_text=embeds_and_mask,
    needs_no_image=True,
    defaults=AUTHORS_FOR_FLUX,  # none are published for this family
    sequence=SequencePlan(_blocks, _text, _image_starts, _embed, _lengthen),
)
