"""Value Sign Flip and Negative-Away Steer Attention as formulas, against float64 by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from nag import negative_away_steer_attention, value_sign_flip


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def one_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    negative_mask: torch.Tensor,
    scale: float,
    bias: float,
) -> torch.Tensor:
    """Attend with (B, L, H, K) over concatenated (B, T, H, K), by torch's own attention."""
    flipped, logit_bias = value_sign_flip(value, negative_mask, scale, bias)
    q, k, v = (part.transpose(1, 2) for part in (query, key, flipped))
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=logit_bias).transpose(1, 2)


@given(
    st.integers(0, 2**31),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 6),
    st.floats(0, 4),
    st.floats(0, 3),
)
def test_vsf_is_the_published_formula_in_float64(
    seed: int, batch: int, num_positive: int, num_negative: int, scale: float, bias: float
) -> None:
    heads, channels = 2, 4
    query = random(seed, batch, 5, heads, channels)
    key, value = (
        random(seed + i, batch, num_positive + num_negative, heads, channels) for i in (1, 2)
    )
    ours = one_attention(
        query, key, value, torch.ones(batch, num_negative, dtype=torch.bool), scale, bias
    )
    q, k, v = (tensor.double().numpy() for tensor in (query, key, value))
    for row in range(batch):
        for token in range(5):
            for head in range(heads):
                above, below = np.zeros(channels), 0.0
                for index in range(num_positive + num_negative):
                    is_negative = index >= num_positive
                    logit = (
                        q[row, token, head] @ k[row, index, head] / math.sqrt(channels)
                        - bias * is_negative
                    )
                    above += math.exp(logit) * v[row, index, head] * (-scale if is_negative else 1)
                    below += math.exp(logit)
                np.testing.assert_allclose(ours[row, token, head].numpy(), above / below, atol=5e-5)


def test_vsf_is_a_case_by_hand() -> None:
    value = torch.tensor([[[[6.0]], [[9.0]]]])
    ours = one_attention(
        torch.zeros(1, 1, 1, 1),
        torch.ones(1, 2, 1, 1),
        value,
        torch.ones(1, 1).bool(),
        2.0,
        math.log(2),
    )
    # weights 1 and 1/2: (6 - 2 * 9 / 2) / 1.5
    torch.testing.assert_close(ours, torch.tensor([[[[-2.0]]]]))


def test_padding_of_the_negative_counts_for_nothing_row_by_row() -> None:
    query, key, value = random(0, 2, 5, 2, 4), random(1, 2, 9, 2, 4), random(2, 2, 9, 2, 4)
    ours = one_attention(
        query, key, value, torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]).bool(), 1.5, 0.2
    )
    for row, num_tokens in enumerate((7, 8)):
        one, tokens = slice(row, row + 1), slice(0, num_tokens)
        text = torch.ones(1, num_tokens - 5).bool()
        short = one_attention(query[one], key[one, tokens], value[one, tokens], text, 1.5, 0.2)
        torch.testing.assert_close(ours[one], short)


def test_a_negative_that_is_all_padding_leaves_the_prompt_alone() -> None:
    query, key, value = random(0, 1, 5, 2, 4), random(1, 1, 9, 2, 4), random(2, 1, 9, 2, 4)
    ours = one_attention(query, key, value, torch.zeros(1, 4).bool(), 1.5, 0.2)
    q, k, v = (part.transpose(1, 2) for part in (query, key[:, :5], value[:, :5]))
    torch.testing.assert_close(
        ours, functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    )
    assert torch.isfinite(ours).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_vsf_keeps_the_type_of_the_values(dtype: torch.dtype) -> None:
    value = random(0, 1, 9, 2, 4).to(dtype)
    flipped, bias = value_sign_flip(
        value, torch.ones(1, 4).bool(), torch.tensor(1.5), torch.tensor(0.2)
    )
    assert flipped.dtype == bias.dtype == dtype
    assert torch.equal(flipped[:, :5], value[:, :5])
    torch.testing.assert_close(flipped[:, 5:], -1.5 * value[:, 5:])
    torch.testing.assert_close(bias[0, 0, 0], torch.tensor([0.0] * 5 + [-0.2] * 4, dtype=dtype))


@given(st.integers(0, 2**31), st.floats(0, 5), st.sampled_from([1e-12, 1.0, 1e4]))
def test_nasa_is_the_published_formula_in_float64(seed: int, scale: float, size: float) -> None:
    positive, negative = size * random(seed, 2, 3, 8), size * random(seed + 1, 2, 3, 8)
    truth = positive.double() - scale * negative.double()
    torch.testing.assert_close(
        negative_away_steer_attention(positive, negative, scale).double(),
        truth,
        rtol=1e-5,
        atol=1e-5 * size,
    )


def test_nasa_of_zero_rows_is_zero_and_of_the_prompt_itself_is_the_rest() -> None:
    positive = random(0, 1, 3, 8)
    positive[0, 1] = 0
    result = negative_away_steer_attention(positive, positive, 0.25)
    assert torch.equal(result[0, 1], torch.zeros(8))
    torch.testing.assert_close(result, 0.75 * positive)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_nasa_is_computed_in_float32_and_rounded_once(dtype: torch.dtype) -> None:
    positive, negative = (
        (100 + random(0, 1, 64, 64)).to(dtype),
        (100 + random(1, 1, 64, 64)).to(dtype),
    )
    # Small differences of large numbers.
    truth = (positive.double() - 0.99 * negative.double()).to(dtype)
    in_half = positive - torch.tensor(0.99, dtype=dtype) * negative
    result = negative_away_steer_attention(positive, negative, torch.tensor(0.99))
    assert result.dtype == dtype
    assert (result != truth).float().mean() < 0.01
    assert (in_half != truth).float().mean() > 0.2
