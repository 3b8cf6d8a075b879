"""Exact attention: torch's plain formula in place of a fused kernel, the fallback after NaN.

It is slower. The plain formula stores all scores, which would be 51 GB for 81 frames of 832x480
(32,760 tokens, 12 heads). The rows of queries do not depend on each other, so they are computed
some at a time, with the same result.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from pipelines.attention.ring_attention import attention_with_lse, plain_attention_with_lse

MAX_SCORES_BYTES = 2**28  # for the scores of one slice; softmax doubles it
_SCORE_BYTES = 4  # torch computes scores in float32, also for half precision
_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


@contextmanager
def exact_attention(max_scores_bytes: int = MAX_SCORES_BYTES) -> Generator[None]:
    """Make every scaled dot-product attention of this thread exact, also the attention of a ring.

    It acts on torch's own function. Diffusers' attention backends other than its native one do not
    call that function and stay as they are; nagfarm sets none.

    Args:
        max_scores_bytes: bytes for the scores of one slice of queries.
    """
    with sdpa_kernel(SDPBackend.MATH), _QuerySlices(max_scores_bytes):
        yield


class _QuerySlices(TorchFunctionMode):
    """Cuts the queries of each attention into slices whose scores fit into memory."""

    def __init__(self, max_scores_bytes: int) -> None:
        super().__init__()
        self._max_scores_bytes = max_scores_bytes

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is attention_with_lse:
            return self._attend_with_lse(*args, **(kwargs or {}))
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(dict(zip(_NAMES, args, strict=False)) | dict(kwargs or {}))

    def _attend(self, call: dict[str, Any]) -> torch.Tensor:
        query, key, mask = call.pop("query"), call["key"], call.pop("attn_mask", None)
        slices = self._slices(query, key)
        # A causal slice would have to know its position in the sequence.
        if len(slices) <= 1 or call.get("is_causal"):
            return scaled_dot_product_attention(query, attn_mask=mask, **call)
        parts = [
            scaled_dot_product_attention(
                query[..., rows, :], attn_mask=_mask_rows(mask, rows), **call
            )
            for rows in slices
        ]
        return torch.cat(parts, dim=-2)

    def _attend_with_lse(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [
            plain_attention_with_lse(query[..., rows, :], key, value, scale)
            for rows in self._slices(query, key)
        ]
        return torch.cat([output for output, _ in parts], dim=-2), torch.cat(
            [lse for _, lse in parts], dim=-1
        )

    def _slices(self, query: torch.Tensor, key: torch.Tensor) -> list[slice]:
        row_bytes = max(query[..., 0, 0].numel() * key.shape[-2] * _SCORE_BYTES, 1)
        num_rows = max(self._max_scores_bytes // row_bytes, 1)
        return [slice(first, first + num_rows) for first in range(0, query.shape[-2], num_rows)]


def _mask_rows(mask: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    # A mask with one row is for all queries.
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]
