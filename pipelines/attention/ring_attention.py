"""Attention that also returns the log-sum-exp of its scores, which ring attention needs.

Diffusers' native backend has no log-sum-exp and so no ring. This module chooses among torch's
kernels: the fused one of the CPU, the fused one of CUDA for half precision (not run on a GPU so
far), and the plain formula for all else and within `exact_attention`.

Shapes: B batch, L queries, T keys, H heads, K channels a head.
"""

from typing import Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _AttentionBackendRegistry,
    _templated_context_parallel_attention,
)
from torch.overrides import _is_torch_function_mode_enabled, handle_torch_function

_HALF_PRECISION = (torch.bfloat16, torch.float16)


def _make_backend_name(name: str) -> AttentionBackendName:
    """Make a backend name beside those of diffusers, whose enum cannot be extended."""
    member = str.__new__(AttentionBackendName, name)
    member._name_ = name.upper()
    member._value_ = name
    return member


RING_BACKEND = _make_backend_name("nagfarm_ring")


def attention_with_lse(
    query_BHLK: torch.Tensor,
    key_BHTK: torch.Tensor,
    value_BHTK: torch.Tensor,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute attention and the log-sum-exp of its scores.

    Returns:
        The attention (B, H, L, K) and the log-sum-exp (B, H, L), float32.
    """
    # Lets `exact_attention` take over this function like torch's own.
    if _is_torch_function_mode_enabled():
        return handle_torch_function(
            attention_with_lse, (query_BHLK,), query_BHLK, key_BHTK, value_BHTK, scale
        )
    if query_BHLK.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            query_BHLK, key_BHTK, value_BHTK, scale=scale
        )
    if query_BHLK.device.type == "cuda" and query_BHLK.dtype in _HALF_PRECISION:
        output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            query_BHLK.contiguous(), key_BHTK.contiguous(), value_BHTK.contiguous(), scale=scale
        )
        return output, lse
    return plain_attention_with_lse(query_BHLK, key_BHTK, value_BHTK, scale)


def plain_attention_with_lse(
    query_BHLK: torch.Tensor,
    key_BHTK: torch.Tensor,
    value_BHTK: torch.Tensor,
    scale: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute `attention_with_lse` by the plain formula, in float32."""
    factor = query_BHLK.shape[-1] ** -0.5 if scale is None else scale
    scores_BHLT = (query_BHLK.float() * factor) @ key_BHTK.float().transpose(-1, -2)
    lse_BHL = scores_BHLT.logsumexp(-1)
    output_BHLK = (scores_BHLT - lse_BHL[..., None]).exp() @ value_BHTK.float()
    return output_BHLK.to(query_BHLK.dtype), lse_BHL


def _forward(
    _context: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *args: Any,
    **_kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the attention to one part of the keys. Diffusers' ring calls it for each part.

    Tensors are (B, L, H, K), the log-sum-exp is (B, L, H).
    """
    mask, dropout_p, is_causal, scale = args[:4]
    assert mask is None
    assert not dropout_p
    assert not is_causal
    output, lse = attention_with_lse(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), scale
    )
    return output.transpose(1, 2), lse.transpose(1, 2)


def _no_backward(*_args: Any, **_kwargs: Any) -> Any:
    raise NotImplementedError("ring attention has no backward pass: it renders and does not train")


@_AttentionBackendRegistry.register(RING_BACKEND, supports_context_parallel=False)
def _ring_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float | None = None,
    _parallel_config: Any = None,
) -> torch.Tensor:
    """Compute self-attention, which has no mask in Wan and LTX, over a ring."""
    output = _templated_context_parallel_attention(
        query,
        key,
        value,
        scale=scale,
        forward_op=_forward,
        backward_op=_no_backward,
        _parallel_config=_parallel_config,
    )
    assert isinstance(output, torch.Tensor)
    return output
