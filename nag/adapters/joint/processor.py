"""The parts that the guiding processors of all joint attentions share.

Shapes: B rows of a call, N text rows with those of the negative lane, T text tokens, L image
tokens, D channels, H heads, K channels a head.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from diffusers.models.embeddings import apply_rotary_emb

from nag.adapters.processor import NagProcessor, attend_by_torch
from nag.attention.text_lanes import QueryKeyValue, TextLanes
from nag.errors import NagTextError


class NagJointProcessor(NagProcessor):
    """Base of the processors that replace diffusers' own in joint attentions.

    In an unguided call the stock processor computes.

    Args:
        stock: the processor that it replaces. It keeps the settings, so that it can return.
        lanes: lanes of the call and the guidance method, one for each transformer.
        block: name of the attention in the pipeline, for error messages.
    """

    def __init__(self, stock: Any, lanes: TextLanes, block: str) -> None:
        super().__init__(stock, block)
        self.lanes = lanes

    def _is_guided(self, text: torch.Tensor | None) -> bool:
        """Return True if the call under way is guided.

        Args:
            text: (N, T, D), the text that reached the attention; None in a single-stream block.

        Raises:
            NagTextError: the call has bypassed the hook, or a parallel plan has cut the text.
        """
        rows = self.lanes.rows
        if rows is None:
            if self.lanes.is_guiding:
                raise NagTextError(f"{self.block}: only a call of the whole transformer is guided")
            return False
        if rows.is_guided and text is not None and text.shape[1] != rows.width:
            raise NagTextError(
                f"{self.block}: the text must stay whole: expected {rows.width} tokens, got "
                f"{text.shape[1]}"
            )
        return rows.is_guided

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return attend_as(self.stock, query, key, value, bias)


def attend_as(
    stock: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    """Attend by the settings of a stock processor; the heads of the output are merged.

    One without these settings calls torch itself, whatever backend diffusers is set to.
    """
    if not hasattr(stock, "_attention_backend"):
        return attend_by_torch(query, key, value, bias)
    output = dispatch_attention_fn(
        query,
        key,
        value,
        attn_mask=bias,
        backend=stock._attention_backend,
        parallel_config=stock._parallel_config,
    )
    return output.flatten(2, 3).to(query.dtype)


Rotary = tuple[torch.Tensor, torch.Tensor]  # cosines and sines of the video, each (L, K)
_rotate: Any = apply_rotary_emb
Normalize = Callable[[torch.Tensor], torch.Tensor] | None


def image_projections(attn: Any, hidden_BLD: torch.Tensor) -> QueryKeyValue:
    """Return queries, keys and values of the image, or of a whole sequence."""
    if getattr(attn, "fused_projections", False):
        query, key, value = attn.to_qkv(hidden_BLD).chunk(3, dim=-1)
    else:
        query, key, value = attn.to_q(hidden_BLD), attn.to_k(hidden_BLD), attn.to_v(hidden_BLD)
    return _normalized(attn, (query, key, value), attn.norm_q, attn.norm_k)


def text_projections(attn: Any, text_NTD: torch.Tensor) -> QueryKeyValue:
    """Return queries, keys and values of the text."""
    if getattr(attn, "fused_projections", False):
        query, key, value = attn.to_added_qkv(text_NTD).chunk(3, dim=-1)
    else:
        query, key = attn.add_q_proj(text_NTD), attn.add_k_proj(text_NTD)
        value = attn.add_v_proj(text_NTD)
    return _normalized(attn, (query, key, value), attn.norm_added_q, attn.norm_added_k)


def rotated(projected: QueryKeyValue, rotary: Rotary | None) -> QueryKeyValue:
    """Return a projection of the video with its positions."""
    if rotary is None:
        return projected
    query, key, value = projected
    query = _rotate(query, rotary, sequence_dim=1)
    return query, _rotate(key, rotary, sequence_dim=1), value


def _normalized(
    attn: Any, projected: QueryKeyValue, norm_q: Normalize, norm_k: Normalize
) -> QueryKeyValue:
    query, key, value = (one.unflatten(-1, (attn.heads, -1)) for one in projected)
    return query if norm_q is None else norm_q(query), key if norm_k is None else norm_k(key), value
