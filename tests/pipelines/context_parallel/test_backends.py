"""The attention backends that support context parallelism, and the ring's own, in one process."""

from collections.abc import Callable

import pytest
import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _maybe_modify_attn_mask_npu,
    dispatch_attention_fn,
)

from pipelines.attention.exact_attention import exact_attention
from pipelines.attention.ring_attention import (
    RING_BACKEND,
    attention_with_lse,
    plain_attention_with_lse,
)
from pipelines.context_parallel.backends import (
    BIAS_BACKENDS,
    RING_BACKENDS,
    SHARDABLE_BACKENDS,
    backends_for,
)
from tests.builders.operators import counted_operators

Attention = Callable[..., tuple[torch.Tensor, torch.Tensor]]
B, H, L, T, K = 2, 3, 37, 23, 8  # batch, heads, queries, keys, channels


def tensors(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(B, H, size, K, generator=generator).to(dtype) for size in (L, T, T)
    )
    return query, key, value


def test_the_table_has_the_backends_that_diffusers_registers() -> None:
    assert _AttentionBackendRegistry._supports_context_parallel == SHARDABLE_BACKENDS


def test_a_ring_takes_fewer_backends_than_ulysses() -> None:
    assert backends_for(ring=1) == SHARDABLE_BACKENDS
    assert backends_for(ring=2) == RING_BACKENDS < SHARDABLE_BACKENDS


def test_few_backends_add_a_bias_to_the_logits_of_text() -> None:
    assert backends_for(ring=2, has_text_bias=True) == BIAS_BACKENDS < RING_BACKENDS
    query, key, _ = (part.transpose(1, 2) for part in tensors(torch.float32))
    bias = torch.zeros(1, 1, 1, T).index_fill(-1, torch.tensor([3]), -10_000.0)
    found = dispatch_attention_fn(query, key, key, bias, backend=AttentionBackendName.NATIVE)
    others = key[:, [number for number in range(T) if number != 3]]
    assert (found - dispatch_attention_fn(query, others, others)).abs().max() < 1e-6
    with pytest.raises(ValueError, match="not supported"):
        dispatch_attention_fn(query, key, key, bias, backend=AttentionBackendName._NATIVE_FLASH)
    # The one kernel that would not raise leaves out the wrong tokens.
    is_left_out = _maybe_modify_attn_mask_npu(query, key, bias)
    assert is_left_out is not None
    assert is_left_out[0, 0, 0].tolist() == [number != 3 for number in range(T)]


def test_diffusers_names_of_backends_stay_as_they_are() -> None:
    """The ring's backend is found when it is set on a processor, and never by accident."""
    assert RING_BACKEND in _AttentionBackendRegistry._backends
    assert RING_BACKEND.value not in {name.value for name in AttentionBackendName}


@pytest.mark.parametrize("scale", [None, 0.7])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "lse_tolerance"),
    # The fused kernel computes bfloat16's exp less exactly.
    [
        (torch.float32, 1e-6, 1e-5),
        (torch.bfloat16, 2**-8, 1e-4),
    ],
)
@pytest.mark.parametrize("attend", [attention_with_lse, plain_attention_with_lse])
def test_attention_and_its_log_sum_exp_are_the_formula(
    attend: Attention,
    dtype: torch.dtype,
    tolerance: float,
    lse_tolerance: float,
    scale: float | None,
) -> None:
    query, key, value = tensors(dtype)
    output, lse = attend(query, key, value, scale)
    scores = query.double() @ key.double().transpose(-1, -2) * (scale or K**-0.5)
    expected = scores.softmax(-1) @ value.double()
    assert output.dtype == dtype
    assert lse.dtype == torch.float32
    assert (output - expected).abs().max() <= tolerance * expected.abs().max()
    assert (lse - scores.logsumexp(-1)).abs().max() < lse_tolerance


def test_two_parts_of_the_keys_add_up_to_the_whole() -> None:
    """A ring adds them up like this."""
    query, key, value = tensors(torch.float32)
    whole, _ = attention_with_lse(query, key, value)
    parts = [
        attention_with_lse(query, key[..., part, :], value[..., part, :])
        for part in (slice(9), slice(9, None))
    ]
    weights = torch.stack([lse for _, lse in parts]).softmax(0)
    summed = sum(
        weight[..., None] * output for weight, (output, _) in zip(weights, parts, strict=True)
    )
    assert (summed - whole).abs().max() < 1e-6


def test_exact_attention_computes_the_ring_in_slices() -> None:
    query, key, value = tensors(torch.float32)
    with (
        counted_operators() as counts,
        exact_attention(1),
    ):
        output, lse = attention_with_lse(query, key, value)
    expected_output, expected_lse = plain_attention_with_lse(query, key, value)
    assert (output - expected_output).abs().max() < 1e-6
    assert (lse - expected_lse).abs().max() < 1e-6
    assert not [name for name in counts if "flash" in name]
    assert counts["aten::logsumexp"] >= L  # one call a query
