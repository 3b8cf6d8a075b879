"""The attentions of JoyImage and Motif-Video by hand, for the reference of joint attention.

Each computes two rows of the stock model, the prompt and the negative prompt. Nothing here imports
from nag/.

Shapes: L image tokens, T text tokens, H heads, K channels a head.
"""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from tests.nag.reference import softmax_sums
from tests.nag.stream_attentions import turned_pairs


class JoyImageAttention:
    """A joint attention of JoyImage Edit or Edit Plus.

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
        encoder_hidden_states: torch.Tensor,
        image_rotary_emb: Any = None,
        attention_mask: torch.Tensor | None = None,
    ) -> Any:
        if len(hidden_states) == 1:
            given = {} if attention_mask is None else {"attention_mask": attention_mask}
            return self.stock(attn, hidden_states, encoder_hidden_states, image_rotary_emb, **given)
        length = encoder_hidden_states.shape[1]
        # The positions are one row's, beside those of the text, or those of all rows.
        cosines, sines = (
            image_rotary_emb if torch.is_tensor(image_rotary_emb[0]) else image_rotary_emb[0]
        )
        rows: list[np.ndarray] = []
        for row in range(2):
            angles = (one[row] if one.ndim == 3 else one for one in (cosines, sines))
            positions = torch.complex(*(one[:, ::2].double() for one in angles))
            query, key, value = attn.img_attn_qkv(hidden_states[0]).chunk(3, dim=-1)
            query = turned_pairs(attn.img_attn_q_norm(_heads(attn, query)), positions)
            key = turned_pairs(attn.img_attn_k_norm(_heads(attn, key)), positions)
            of_text = attn.txt_attn_qkv(encoder_hidden_states[row]).chunk(3, dim=-1)
            parts = [
                (attn.txt_attn_q_norm(_heads(attn, of_text[0])).flatten(1), query.flatten(1)),
                (attn.txt_attn_k_norm(_heads(attn, of_text[1])).flatten(1), key.flatten(1)),
                (of_text[2], value),
            ]
            tokens = [torch.cat([one.double(), other.double()]) for one, other in parts]
            mask = functional.pad(self.call.mask[row], (0, len(query)), value=1)
            sums = softmax_sums(tokens[0], tokens[1], tokens[2], attn.heads, mask)
            rows.append(sums.mean().reshape(len(tokens[0]), -1))
        image = self.call.guide(rows[0][length:], rows[1][length:])
        both = np.stack([image, image]), np.stack([row[:length] for row in rows])
        image_output, text_output = (torch.from_numpy(one).to(hidden_states.dtype) for one in both)
        return attn.img_attn_proj(image_output), attn.txt_attn_proj(text_output)


class MotifVideoCrossAttention:
    """A cross-attention of Motif-Video, of the video to the text."""

    def __init__(self, stock: Any, call: Any) -> None:
        self.stock, self.call = stock, call

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        image_rotary_emb: Any = None,
        image_embed_seq_len: int = 0,
    ) -> torch.Tensor:
        if len(hidden_states) == 1:
            return self.stock(
                attn,
                hidden_states,
                encoder_hidden_states,
                attention_mask,
                image_rotary_emb,
                image_embed_seq_len,
            )
        positions = torch.complex(*(one[:, ::2].double() for one in image_rotary_emb))
        rows: list[np.ndarray] = []
        for row in range(2):
            text = encoder_hidden_states[row, image_embed_seq_len:]
            query = turned_pairs(attn.norm_q(_heads(attn, attn.to_q(hidden_states[0]))), positions)
            key = attn.norm_k(_heads(attn, attn.to_k(text))).flatten(1)
            mask = self.call.mask[row]
            sums = softmax_sums(query.flatten(1), key, attn.to_v(text), attn.heads, mask)
            rows.append(sums.mean().reshape(len(query), -1))
        video = self.call.guide(rows[0], rows[1])
        both = torch.from_numpy(np.stack([video, video])).to(hidden_states.dtype)
        return attn.to_out[0](both)


def _heads(attn: Any, tokens: torch.Tensor) -> torch.Tensor:
    return tokens.unflatten(-1, (attn.heads, -1))
