"""Attention by torch's plain formula instead of a fused kernel: slower, and what is left when a kernel gives NaN.

Decides how the exact attention fits into memory. The plain formula writes all scores down, which for 81 frames of
832x480 (32,760 tokens, 12 heads) would be 51 GB; rows of queries do not depend on each other, so they are computed
some at a time, and the result is the same.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

MAX_SCORES_BYTES = 2**28  # of one slice; softmax doubles it
_SCORE_BYTES = 4  # torch computes them in float32, also of half precision
_NAMES = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


@contextmanager
def exact_attention(max_scores_bytes: int = MAX_SCORES_BYTES) -> Generator[None]:
    """Within it every scaled dot-product attention of this thread is exact.

    What is on another attention backend of diffusers than its native one does not come through torch's function and
    stays as it is; nagfarm sets none.
    """
    with sdpa_kernel(SDPBackend.MATH), _QuerySlices(max_scores_bytes):
        yield


class _QuerySlices(TorchFunctionMode):
    """Cuts each attention's queries into slices whose scores fit."""

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
        if func is not scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        return self._attend(dict(zip(_NAMES, args, strict=False)) | dict(kwargs or {}))

    def _attend(self, call: dict[str, Any]) -> torch.Tensor:
        query, key, mask = call.pop("query"), call["key"], call.pop("attn_mask", None)
        num_queries = query.shape[-2]
        row_bytes = max(query[..., 0, 0].numel() * key.shape[-2] * _SCORE_BYTES, 1)
        num_rows = max(self._max_scores_bytes // row_bytes, 1)
        if num_rows >= num_queries or call.get("is_causal"):  # a causal slice would have to know where it stands
            return scaled_dot_product_attention(query, attn_mask=mask, **call)
        slices = [slice(first, first + num_rows) for first in range(0, num_queries, num_rows)]
        parts = [
            scaled_dot_product_attention(query[..., rows, :], attn_mask=_mask_rows(mask, rows), **call)
            for rows in slices
        ]
        return torch.cat(parts, dim=-2)


def _mask_rows(mask: torch.Tensor | None, rows: slice) -> torch.Tensor | None:
    return mask if mask is None or mask.shape[-2] == 1 else mask[..., rows, :]  # one row is for all queries
