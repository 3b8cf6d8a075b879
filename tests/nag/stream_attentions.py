"""The attentions of further single-stream families by hand, for the reference.

Shapes: S tokens of a row's sequence, D channels, H heads, K channels a head.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tests.nag.reference import softmax_sums

Rotated = Callable[[torch.Tensor, int], torch.Tensor]  # tokens (S, H, K) of a row, and its index


class StreamAttention:
    """An attention by hand over one row, or over a row and the same with the negative prompt.

    Args:
        call: the transformer's call under way, a `Forward`.
    """

    def __init__(self, call: Any) -> None:
        self.call = call

    def attend(
        self, attn: Any, hidden_BSD: torch.Tensor, rotated: Rotated, mask_BS: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the guided output (B, S, D), before the output projection."""
        rows: list[np.ndarray] = []
        for row, hidden in enumerate(hidden_BSD):
            query, key, value = (
                layer(hidden).unflatten(1, (-1, attn.norm_q.weight.shape[0]))
                for layer in (attn.to_q, attn.to_k, attn.to_v)
            )
            query, key = rotated(attn.norm_q(query), row), rotated(attn.norm_k(key), row)
            heads = query.shape[1]
            shared = [head * key.shape[1] // heads for head in range(heads)]
            key, value = key[:, shared], value[:, shared]
            mask = None if mask_BS is None else mask_BS[row]
            sums = softmax_sums(query.flatten(1), key.flatten(1), value.flatten(1), heads, mask)
            rows.append(sums.mean().reshape(len(hidden), -1))
        self.call.guide(rows)
        return torch.from_numpy(np.stack(rows)).to(hidden_BSD.dtype)


class Krea2Attention(StreamAttention):
    """Krea 2's, with its gate."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> torch.Tensor:
        cosines, sines = (one[:, ::2].double() for one in image_rotary_emb)
        positions = torch.complex(cosines, sines)
        mask_BS = None if attention_mask is None else attention_mask[:, 0, 0]
        output = self.attend(
            attn, hidden_states, lambda tokens, _: turned_pairs(tokens, positions), mask_BS
        )
        return attn.to_out[0](output * attn.to_gate(hidden_states).sigmoid())


class QwenImage21Attention(StreamAttention):
    """Qwen-Image 2.1's: text sees the text before it; the image sees all."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, key_valid: torch.Tensor, **_: Any
    ) -> torch.Tensor:
        rows: list[np.ndarray] = []
        length = hidden_states.shape[1] - self.num_image_tokens
        for row, hidden in enumerate(hidden_states):
            query, key, value = (
                layer(hidden).unflatten(1, (attn.heads, -1))
                for layer in (attn.to_q, attn.to_k, attn.to_v)
            )
            # The negative prompt has the positions of a call with itself alone.
            num_before = self.call.lengths[1] if row else length
            positions = self._positions(num_before, length)
            query = turned_pairs(attn.norm_q(query), positions).flatten(1)
            key = turned_pairs(attn.norm_k(key), positions).flatten(1)
            seen = [
                key_valid[row] & (torch.arange(len(hidden)) <= token) for token in range(length)
            ]
            parts = [
                softmax_sums(query[token : token + 1], key, value.flatten(1), attn.heads, one)
                for token, one in enumerate(seen)
            ]
            parts.append(
                softmax_sums(query[length:], key, value.flatten(1), attn.heads, key_valid[row])
            )
            rows.append(np.concatenate([one.mean() for one in parts]).reshape(len(hidden), -1))
        self.call.guide(rows)
        return attn.to_out[0](torch.from_numpy(np.stack(rows)).to(hidden_states.dtype))

    num_image_tokens, side = 16, 4

    def _positions(self, num_before: int, length: int) -> torch.Tensor:
        """Return the positions of `length` text tokens and of an image behind `num_before`."""
        grid = torch.arange(self.side) - self.side // 2
        height, width = torch.meshgrid(grid, grid, indexing="ij")
        text = torch.arange(length)
        axes = (
            torch.cat([text, torch.full((self.num_image_tokens,), num_before)]),
            torch.cat([text, height.flatten()]),
            torch.cat([text, width.flatten()]),
        )
        frequencies = 10000.0 ** -(torch.arange(0, 4, 2, dtype=torch.float64) / 4)
        angles = torch.cat([axis[:, None] * frequencies for axis in axes], dim=1)
        return torch.polar(torch.ones_like(angles), angles)


class BriaFibo2Attention(StreamAttention):
    """Fibo 2's: in one sequence, or from it to hidden states of the text."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        freqs_cis: torch.Tensor | None = None,
    ) -> torch.Tensor:
        texts = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        rows: list[np.ndarray] = []
        for row, (hidden, text) in enumerate(zip(hidden_states, texts, strict=True)):
            query, key, value = (
                layer(tokens).unflatten(1, (attn.heads, -1))
                for layer, tokens in ((attn.to_q, hidden), (attn.to_k, text), (attn.to_v, text))
            )
            query, key = attn.norm_q(query), attn.norm_k(key)
            if freqs_cis is not None:
                query, key = turned_pairs(query, freqs_cis[0]), turned_pairs(key, freqs_cis[0])
            mask = None if attention_mask is None else attention_mask[row]
            sums = softmax_sums(
                query.flatten(1), key.flatten(1), value.flatten(1), attn.heads, mask
            )
            rows.append(sums.mean().reshape(len(hidden), -1))
        self.call.guide(rows)
        return attn.to_out[0](torch.from_numpy(np.stack(rows)).to(hidden_states.dtype))


class Ideogram4Attention(StreamAttention):
    """Ideogram 4's, which turns the halves of each head and leaves the filler out."""

    def __call__(
        self, attn: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor, rotary: Any
    ) -> torch.Tensor:
        cosines, sines = (one.double() for one in rotary)

        def rotated(tokens_SHK: torch.Tensor, row: int) -> torch.Tensor:
            one, other = tokens_SHK.double().chunk(2, dim=-1)
            turned = torch.cat([-other, one], dim=-1) * sines[row, :, None]
            return tokens_SHK * cosines[row, :, None] + turned

        seen_by_image = attention_mask[:, 0, -1]
        return attn.to_out[0](self.attend(attn, hidden_states, rotated, seen_by_image))


class ErnieImageAttention(StreamAttention):
    """ERNIE-Image's, which turns the halves of each head."""

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor,
        freqs_cis: torch.Tensor,
    ) -> torch.Tensor:
        def rotated(tokens_SHK: torch.Tensor, row: int) -> torch.Tensor:
            angles = freqs_cis[row].double()
            one, other = tokens_SHK.double().chunk(2, dim=-1)
            return torch.cat([one, other], -1) * angles.cos() + (
                torch.cat([-other, one], -1) * angles.sin()
            )

        output = self.attend(attn, hidden_states, rotated, attention_mask[:, 0, 0])
        return attn.to_out[0](output)


def turned_pairs(tokens_SHK: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Turn each pair of neighbouring channels by complex positions (S, K / 2)."""
    pairs = torch.view_as_complex(tokens_SHK.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * positions[:, None]).flatten(-2)
