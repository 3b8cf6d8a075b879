from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nag import normalized_attention_guidance
from tests.nag.reference import guided

CHANNELS_14B = 5120


def attention_outputs(
    seed: int, batch: int, tokens: int, channels: int
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, tokens, channels)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def expected(
    positive: torch.Tensor,
    negative: torch.Tensor,
    scale: float,
    tau: float,
    alpha: float,
    norm: str = "l1",
) -> np.ndarray:
    rows = zip(positive.double().numpy(), negative.double().numpy(), strict=True)
    return np.stack(
        [guided(plus, minus, scale, tau, alpha, {"l1": 1, "l2": 2}[norm]) for plus, minus in rows]
    )


@given(
    st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 6), st.integers(1, 40),
    st.floats(1, 30), st.floats(0.05, 10), st.floats(0, 1),
    st.sampled_from([1e-12, 1e-3, 1.0, 1e4]), st.sampled_from(["l1", "l2"]),
)  # fmt: skip
def test_nag_is_the_published_formula_in_float64(
    seed: int, batch: int, tokens: int, channels: int, scale: float, tau: float, alpha: float,
    size: float, norm: Literal["l1", "l2"],
) -> None:  # fmt: skip
    positive, negative = (
        size * tensor for tensor in attention_outputs(seed, batch, tokens, channels)
    )
    result = normalized_attention_guidance(positive, negative, scale, tau, alpha, norm)
    assert result.shape == positive.shape
    np.testing.assert_allclose(
        result.numpy(),
        expected(positive, negative, scale, tau, alpha, norm),
        rtol=2e-5,
        atol=2e-5 * size * max(1, tau),
    )


def test_the_norm_is_l1_as_a_case_by_hand_shows() -> None:
    positive, negative = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[1.0, 3.0]]])
    # Zg = 3 * (3, 1) - 2 * (1, 3) = (7, -3): L1 10 against 4, so r = 2.5, over tau 2 by 1.25;
    # in L2 r would be 2.41.
    result = normalized_attention_guidance(positive, negative, 3.0, 2.0, 1.0)
    torch.testing.assert_close(result, torch.tensor([[[5.6, -2.4]]]))


def test_the_l2_norm_is_another_bound_as_a_case_by_hand_shows() -> None:
    positive, negative = torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[-0.5, 7.0]]])
    # Zg = 3 * (3, 4) - 2 * (-0.5, 7) = (10, -2): L2 sqrt(104) against 5, so tau 1 takes it to 5;
    # in L1 it would be 12 against 7.
    result = normalized_attention_guidance(positive, negative, 3.0, 1.0, 1.0, "l2")
    torch.testing.assert_close(result, torch.tensor([[[10.0, -2.0]]]) * 5 / 104**0.5)
    in_l1 = normalized_attention_guidance(positive, negative, 3.0, 1.0, 1.0, "l1")
    torch.testing.assert_close(in_l1, torch.tensor([[[10.0, -2.0]]]) * 7 / 12)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_zero_rows_give_zeros_not_nan(norm: Literal["l1", "l2"]) -> None:
    positive, negative = attention_outputs(0, 2, 4, 16)
    positive[0, 1] = negative[0, 1] = 0
    result = normalized_attention_guidance(positive, negative, 9.0, 2.5, 0.25, norm)
    assert torch.equal(result[0, 1], torch.zeros(16))
    assert torch.isfinite(result).all()
    assert result[0, 0].abs().min() > 0


def test_a_zero_prompt_token_stays_zero_with_any_negative_prompt() -> None:
    _, negative = attention_outputs(0, 1, 4, 16)
    result = normalized_attention_guidance(torch.zeros_like(negative), negative, 9.0, 2.5, 0.25)
    assert torch.equal(result, torch.zeros_like(negative))


@given(st.integers(0, 2**31), st.floats(1, 30), st.floats(0.05, 10))
def test_no_token_outgrows_tau_times_its_norm(seed: int, scale: float, tau: float) -> None:
    positive, negative = attention_outputs(seed, 1, 8, 32)
    result = normalized_attention_guidance(positive, negative, scale, tau, 1.0)
    assert (result.abs().sum(-1) <= tau * positive.abs().sum(-1) * (1 + 1e-5)).all()


def test_guidance_shrinks_and_never_enlarges() -> None:
    positive, _ = attention_outputs(0, 1, 8, 32)
    negative = positive * 1.05  # Zg is then 0.6 of Z+, far under tau
    result = normalized_attention_guidance(positive, negative, 9.0, 2.5, 1.0)
    torch.testing.assert_close(result, 0.6 * positive, rtol=1e-4, atol=1e-5)


def test_each_token_has_a_norm_of_its_own() -> None:
    positive, negative = attention_outputs(0, 2, 6, 16)
    positive[0, 0] *= 100
    together = normalized_attention_guidance(positive, negative, 9.0, 2.5, 0.5)
    for row in range(2):
        for token in range(6):
            alone = normalized_attention_guidance(
                positive[row : row + 1, token : token + 1],
                negative[row : row + 1, token : token + 1],
                9.0,
                2.5,
                0.5,
            )
            torch.testing.assert_close(together[row, token], alone[0, 0])


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)])
@pytest.mark.parametrize("mean", [13.0, 100.0])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_half_precision_with_5120_wide_tokens_neither_overflows_nor_fades(
    dtype: torch.dtype, rtol: float, mean: float, norm: Literal["l1", "l2"]
) -> None:
    positive, negative = attention_outputs(3, 1, 4, CHANNELS_14B)
    positive, negative = (mean + positive).to(dtype), (mean - 2 * negative).to(dtype)
    assert mean > 12.8  # from here the L1 norm exceeds float16
    result = normalized_attention_guidance(positive, negative, 11.0, 1.1, 0.5, norm)
    truth = expected(positive, negative, 11.0, 1.1, 0.5, norm)
    assert result.dtype == dtype
    assert torch.isfinite(result).all()
    np.testing.assert_allclose(result.double().numpy(), truth, rtol=rtol, atol=rtol * mean)
    # Guidance is at work in this test.
    assert np.abs(truth - positive.double().numpy()).mean() > 20 * rtol


def test_parameters_as_0_dim_tensors_give_the_same_as_floats() -> None:
    positive, negative = attention_outputs(0, 1, 4, 16)
    floats = normalized_attention_guidance(positive, negative, 9.0, 2.5, 0.25)
    scale, tau, alpha = (torch.tensor(value) for value in (9.0, 2.5, 0.25))
    tensors = normalized_attention_guidance(positive, negative, scale, tau, alpha)
    torch.testing.assert_close(floats, tensors)


def test_tiny_outputs_are_guided_like_large_ones() -> None:
    positive, negative = attention_outputs(0, 1, 4, 16)
    large = normalized_attention_guidance(positive, negative, 9.0, 2.5, 0.5)
    small = normalized_attention_guidance(positive * 2.0**-60, negative * 2.0**-60, 9.0, 2.5, 0.5)
    torch.testing.assert_close(small * 2.0**60, large)
