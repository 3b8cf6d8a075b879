"""The reference for HiDream: two rows of the stock model, with an attention by hand, in float64.

Nothing here imports from nag/.

Shapes: L image tokens, D channels, H heads, K channels a head.
"""

from typing import Any

import numpy as np
import torch

from tests.nag.reference import softmax_sums

IMAGE = ("to_q", "to_k", "to_v", "q_rms_norm", "k_rms_norm")


class HiDreamAttention:
    """An attention over two rows, the prompt's and the negative prompt's.

    Args:
        stock: processor of the attention, which computes unguided rows.
        call: call of the transformer under way.
    """

    def __init__(self, stock: Any, call: Any) -> None:
        self.stock, self.call = stock, call

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        hidden_states_masks: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        image_rotary_emb: torch.Tensor | None = None,
    ) -> Any:
        if len(hidden_states) == 1:
            return self.stock(
                attn,
                hidden_states,
                hidden_states_masks,
                encoder_hidden_states,
                image_rotary_emb,
            )
        text = encoder_hidden_states
        if text is not None:
            self.call.text_length = text.shape[1]
        num_text = self.call.text_length
        rows: list[np.ndarray] = []
        for row in range(2):
            # The image of the first row serves both texts in two-stream blocks.
            own = slice(0, 1) if text is not None else slice(row, row + 1)
            parts = self._projected(attn, hidden_states[own], IMAGE)
            if hidden_states_masks is not None:
                parts[1] = parts[1] * hidden_states_masks[row][None, :, None]
            if text is not None:
                names = tuple(f"{name}_t" for name in IMAGE)
                of_text = self._projected(attn, text[row : row + 1], names)
                parts = [torch.cat(pair, 1) for pair in zip(parts, of_text, strict=True)]
            assert image_rotary_emb is not None
            for index in (0, 1):
                parts[index] = _turned(parts[index], image_rotary_emb[0, :, 0], attn.heads)
            sums = softmax_sums(*(one[0] for one in parts), attn.heads, None)
            rows.append(sums.mean().reshape(parts[0].shape[1], -1))
        length = len(rows[0]) - num_text
        image = self.call.guide(rows[0][:length], rows[1][:length])
        whole = torch.from_numpy(
            np.stack([np.concatenate([image, row[length:]]) for row in rows])
        ).to(hidden_states.dtype)
        if text is None:
            return attn.to_out(whole)
        return attn.to_out(whole[:, :length]), attn.to_out_t(whole[:, length:])

    def _projected(
        self, attn: Any, hidden: torch.Tensor, names: tuple[str, ...]
    ) -> list[torch.Tensor]:
        to_q, to_k, to_v, norm_q, norm_k = (getattr(attn, name) for name in names)
        return [norm_q(to_q(hidden)), norm_k(to_k(hidden)), to_v(hidden)]


def _turned(tokens_1LD: torch.Tensor, turns: torch.Tensor, heads: int) -> torch.Tensor:
    """Turn pairs of channels of each head by 2 x 2 matrices (L, pairs, 2, 2); the rest stays."""
    tokens = tokens_1LD[0].unflatten(-1, (heads, -1)).clone()
    num = 2 * turns.shape[1]
    pairs = tokens[..., :num].unflatten(-1, (-1, 2))
    tokens[..., :num] = torch.einsum("lpij,lhpj->lhpi", turns.to(tokens), pairs).flatten(-2)
    return tokens.flatten(1)[None]


def share_image(_block: Any, _args: Any, kwargs: dict[str, Any], call: Any) -> Any:
    """Give both rows the image of the first one, before the first single-stream block."""
    sequence = kwargs["hidden_states"].clone()
    length = sequence.shape[1] - call.text_length
    sequence[:, :length] = sequence[:1, :length]
    return (), kwargs | {"hidden_states": sequence}
