"""Exact attention equals the formula, with all scores at once and in slices."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from pipelines.attention.exact_attention import exact_attention
from tests.builders.operators import counted_operators

B, H, L, T, K = 2, 3, 37, 23, 8  # batch, heads, queries, keys, channels
ONE_ROW_BYTES = B * H * T * 4
KERNEL = "aten::_scaled_dot_product_attention_math"


def tensors(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(B, H, size, K, generator=generator, dtype=dtype) for size in (L, T, T)
    )
    return query, key, value


def formula(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    scores = query.double() @ key.double().transpose(-1, -2) / K**0.5
    return (scores if mask is None else scores + mask).softmax(-1) @ value.double()


@pytest.mark.parametrize("max_scores_bytes", [1, ONE_ROW_BYTES * 10, ONE_ROW_BYTES * L])
@pytest.mark.parametrize("mask_shape", [None, (B, 1, 1, T), (B, H, L, T), (L, T)])
def test_exact_attention_is_the_formula(
    max_scores_bytes: int, mask_shape: tuple[int, ...] | None
) -> None:
    query, key, value = tensors()
    mask = (
        None
        if mask_shape is None
        else torch.randn(mask_shape, generator=torch.Generator().manual_seed(1))
    )
    with exact_attention(max_scores_bytes):
        by_name = scaled_dot_product_attention(query=query, key=key, value=value, attn_mask=mask)
        in_order = scaled_dot_product_attention(query, key, value, mask)
    expected = formula(query, key, value, mask)
    assert (by_name - expected).abs().max() < 1e-5
    assert torch.equal(by_name, in_order)


@pytest.mark.parametrize(("num_rows", "expected"), [(10, 4), (L, 1)])
def test_no_slice_holds_more_scores_than_allowed(num_rows: int, expected: int) -> None:
    with (
        counted_operators() as counts,
        exact_attention(ONE_ROW_BYTES * num_rows),
    ):
        scaled_dot_product_attention(*tensors())
    assert counts[KERNEL] == expected


def test_a_causal_mask_is_kept() -> None:
    query, key, value = tensors()
    with exact_attention(1):
        found = scaled_dot_product_attention(query[..., :T, :], key, value, is_causal=True)
    mask = torch.full((T, T), -torch.inf).triu(1)
    assert (found - formula(query[..., :T, :], key, value, mask)).abs().max() < 1e-5


def test_half_precision_is_summed_in_float32() -> None:
    query, key, value = tensors(torch.bfloat16)
    with exact_attention(ONE_ROW_BYTES * 10):
        found = scaled_dot_product_attention(query, key, value)
    exact = formula(query, key, value, None)
    # The rounding of the result alone.
    assert (found - exact).abs().max() <= 2**-8 * exact.abs().max()


def test_exact_attention_ends_with_its_block_also_after_an_error() -> None:
    with pytest.raises(RuntimeError, match="in the middle"), exact_attention():
        raise RuntimeError("in the middle")
    with counted_operators() as counts:
        scaled_dot_product_attention(*tensors())
    assert counts
    assert counts[KERNEL] == 0
