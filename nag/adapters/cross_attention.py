"""Guidance in the text cross-attentions of diffusers' own `Attention` class.

UNets, PixArt, Sana, Latte and others have it. They differ in their stock processors, and each of
ours follows the one that it replaces. A call without guidance is left to the stock processor.

Shapes: B batch, L image or video tokens, T text tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
)

from nag.adapters.processor import attend_by_torch
from nag.adapters.text_processor import NagTextProcessor, split_heads
from nag.attention.kept_projections import KeyValue


class NagAttnProcessor(NagTextProcessor):
    """Replaces diffusers' `AttnProcessor2_0` in a cross-attention."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if not self._is_guided(encoder_hidden_states):
            return self.stock(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        tokens_BLD = tokens_of(attn, hidden_states, temb)
        return self._call(attn, hidden_states, tokens_BLD, encoder_hidden_states, attention_mask)

    def _call(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        tokens_BLD: torch.Tensor,
        text_BTD: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        query_BLHK = self._query(attn, tokens_BLD)
        output_BLD = self._guide(attn, query_BLHK, text_BTD, attention_mask)
        return project_out(attn, output_BLD, hidden_states)

    def _is_guided(self, text_BTD: torch.Tensor | None) -> bool:
        """Return True if the text of a call holds both prompts.

        Raises:
            NagTextError: the text did not come through the model's call, or was cut since.
        """
        length = 0 if text_BTD is None else text_BTD.shape[1]
        if not length or length != self.text_concat.layout.length:
            raise self._refuse_text(length)
        return bool(self.text_concat.layout.negative_length)

    def _guide(
        self,
        attn: Any,
        query_BLHK: torch.Tensor,
        text_BTD: torch.Tensor,
        attention_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the guided output, (B, L, D): heads merged, before the output projection."""
        batch_size, text_length, _ = text_BTD.shape
        if attention_mask is not None:  # (B, 1, T), additive, to (B, H, 1, T)
            per_head = attn.prepare_attention_mask(attention_mask, text_length, batch_size)
            attention_mask = per_head.view(batch_size, attn.heads, -1, text_length)
        key_BTHK, value_BTHK = self._key_value(attn, text_BTD, query_BLHK.shape[1])
        return self.text_concat.guide(
            self._attend_in(attn), query_BLHK, key_BTHK, value_BTHK, attention_mask
        )

    def _query(self, attn: Any, tokens_BLD: torch.Tensor) -> torch.Tensor:
        query_BLHK = split_heads(attn, attn.to_q(tokens_BLD))
        return query_BLHK if attn.norm_q is None else attn.norm_q(query_BLHK)

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        text_BTD = self._normed_text(attn, text_BTD)
        key_BTHK = split_heads(attn, attn.to_k(text_BTD))
        key_BTHK = key_BTHK if attn.norm_k is None else attn.norm_k(key_BTHK)
        return key_BTHK, split_heads(attn, attn.to_v(text_BTD))

    def _normed_text(self, attn: Any, text_BTD: torch.Tensor) -> torch.Tensor:
        """Return the normed text; the norm may be over tokens, so each prompt has its own."""
        if not attn.norm_cross:
            return text_BTD
        border = self.text_concat.layout.positive_length
        prompts = text_BTD[:, :border], text_BTD[:, border:]
        return torch.cat([attn.norm_encoder_hidden_states(one) for one in prompts], dim=1)

    def _attend_in(self, attn: Any) -> Any:
        """Return the attention of the stock processor, for one of its modules."""
        del attn  # `AttnProcessor` reads it
        return self._attend

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return attend_by_torch(query, key, value, bias)


class NagFusedAttnProcessor(NagAttnProcessor):
    """Replaces `FusedAttnProcessor2_0`, which a model has after `fuse_qkv_projections`."""

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        text_BTD = self._normed_text(attn, text_BTD)
        key, value = attn.to_kv(text_BTD).chunk(2, dim=-1)
        key_BTHK = split_heads(attn, key)
        key_BTHK = key_BTHK if attn.norm_k is None else attn.norm_k(key_BTHK)
        return key_BTHK, split_heads(attn, value)


class NagPlainAttnProcessor(NagAttnProcessor):
    """Replaces `AttnProcessor`, which computes the scores itself, by the module's own scale."""

    def _query(self, attn: Any, tokens_BLD: torch.Tensor) -> torch.Tensor:
        return split_heads(attn, attn.to_q(tokens_BLD))

    def _project(self, attn: Any, text_BTD: torch.Tensor) -> KeyValue:
        text_BTD = self._normed_text(attn, text_BTD)
        return split_heads(attn, attn.to_k(text_BTD)), split_heads(attn, attn.to_v(text_BTD))

    def _attend_in(self, attn: Any) -> Any:
        def attend(
            query: torch.Tensor,
            key: torch.Tensor,
            value: torch.Tensor,
            bias: torch.Tensor | None = None,
        ) -> torch.Tensor:
            query, key, value = (
                attn.head_to_batch_dim(one.flatten(2, 3)) for one in (query, key, value)
            )
            if bias is not None:
                bias = bias.flatten(0, 1)
                bias = bias.expand(-1, query.shape[1], -1)
            scores = attn.get_attention_scores(query, key, bias)
            return attn.batch_to_head_dim(torch.bmm(scores, value))

        return attend


def tokens_of(attn: Any, hidden_states: torch.Tensor, temb: torch.Tensor | None) -> torch.Tensor:
    """Return the normed tokens (B, L, D) of an attention's input, which may be an image."""
    if attn.spatial_norm is not None:
        hidden_states = attn.spatial_norm(hidden_states, temb)
    if hidden_states.ndim == 4:
        hidden_states = hidden_states.flatten(2).transpose(1, 2)
    if attn.group_norm is not None:
        hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
    return hidden_states


def repeat_heads(projected_BTD: torch.Tensor, num_heads: int, head_dim: int) -> torch.Tensor:
    """Return (B, T, H, K) of keys or values with fewer heads, each as often as it has queries."""
    heads_BTHK = projected_BTD.unflatten(2, (-1, head_dim))
    return heads_BTHK.repeat_interleave(num_heads // heads_BTHK.shape[2], dim=2)


def project_out(attn: Any, output_BLD: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
    """Return an attention's output in the shape of its input, `hidden_states`."""
    output = attn.to_out[1](attn.to_out[0](output_BLD))
    if hidden_states.ndim == 4:
        output = output.transpose(1, 2).reshape(hidden_states.shape)
    if attn.residual_connection:
        output = output + hidden_states
    return output / attn.rescale_output_factor


def is_text_attention(_name: str, module: Any) -> bool:
    """Return True for a cross-attention; those of a model that attend to text alone are so."""
    return isinstance(module, Attention) and module.is_cross_attention


PROCESSORS = {
    AttnProcessor2_0: NagAttnProcessor,
    FusedAttnProcessor2_0: NagFusedAttnProcessor,
    AttnProcessor: NagPlainAttnProcessor,
}
