"""The attentions of Flux 2 by hand, of both kinds of blocks, for the reference.

Shapes: T tokens of both texts' filled rows, L image tokens, S tokens of both, H heads, K channels.
"""

from typing import Any

import numpy as np
import torch

from tests.nag.reference import softmax_sums


class Flux2Attention:
    """An attention by hand over one row, or over a row and the same with the negative prompt.

    Args:
        call: the transformer's call under way, a `Forward`.
    """

    def __init__(self, call: Any) -> None:
        self.call = call

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
    ) -> Any:
        if not hasattr(attn, "to_qkv_mlp_proj"):
            assert encoder_hidden_states is not None
            parts = self._text_parts(attn, encoder_hidden_states), self._parts(attn, hidden_states)
            query, key, value = (torch.cat(pair, dim=1) for pair in zip(*parts, strict=True))
            output = self._attend(query, key, value, image_rotary_emb, attn)
            length = encoder_hidden_states.shape[1]
            return attn.to_out[0](output[:, length:]), attn.to_add_out(output[:, :length])
        # The module of a single stream hands its positions on as the third argument.
        rotary = attention_mask if image_rotary_emb is None else image_rotary_emb
        whole = attn.to_qkv_mlp_proj(hidden_states)
        width = attn.inner_dim
        query, key, value, feedforward = whole.split_with_sizes(
            [width] * 3 + [whole.shape[2] - 3 * width], dim=2
        )
        query, key, value = (one.unflatten(2, (attn.heads, -1)) for one in (query, key, value))
        query, key = attn.norm_q(query), attn.norm_k(key)
        output = self._attend(query, key, value, rotary, attn)
        return attn.to_out(torch.cat([output, attn.mlp_act_fn(feedforward)], dim=2))

    def _parts(self, attn: Any, hidden: torch.Tensor) -> list[torch.Tensor]:
        query, key, value = (
            layer(hidden).unflatten(2, (attn.heads, -1))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        return [attn.norm_q(query), attn.norm_k(key), value]

    def _text_parts(self, attn: Any, text: torch.Tensor) -> list[torch.Tensor]:
        query, key, value = (
            layer(text).unflatten(2, (attn.heads, -1))
            for layer in (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
        )
        return [attn.norm_added_q(query), attn.norm_added_k(key), value]

    def _attend(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rotary: Any, attn: Any
    ) -> torch.Tensor:
        query, key = _rotated(query, rotary), _rotated(key, rotary)
        rows: list[np.ndarray] = []
        for row in range(len(query)):
            tokens = [one[row].flatten(1) for one in (query, key, value)]
            mask = torch.ones(query.shape[1], dtype=torch.bool)
            if self.call.images:  # the shorter text has a filler behind it
                mask[self.call.lengths[row] : self.call.images[row].start] = False
            rows.append(self._row(tokens, attn.heads, mask))
        self.call.guide(rows)
        return torch.from_numpy(np.stack(rows)).to(value.dtype)

    def _row(self, tokens: list[torch.Tensor], heads: int, mask: torch.Tensor) -> np.ndarray:
        sums = softmax_sums(tokens[0], tokens[1], tokens[2], heads, mask)
        return sums.mean().reshape(len(mask), -1)


class Flux2AttentionWithReferences(Flux2Attention):
    """The same where reference images stand before the image and see themselves alone."""

    num_references = 0

    def __call__(self, *args: Any, num_ref_tokens: int = 0, **kwargs: Any) -> Any:
        self.num_references = num_ref_tokens
        return super().__call__(*args, **kwargs)

    def _row(self, tokens: list[torch.Tensor], heads: int, mask: torch.Tensor) -> np.ndarray:
        row = super()._row(tokens, heads, mask)
        if self.num_references:
            start = self.call.images[0].start
            alone = slice(start, start + self.num_references)
            row[alone] = super()._row([one[alone] for one in tokens], heads, mask[alone])
        return row


def _rotated(tokens_BSHK: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    cosines, sines = (one[:, None, ::2].double() for one in rotary)
    pairs = torch.view_as_complex(tokens_BSHK.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.complex(cosines, sines)).flatten(-2)
