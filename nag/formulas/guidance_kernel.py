"""Normalized Attention Guidance as one Triton kernel, which passes over memory once.

A program reads a token's two rows, keeps them in float32 registers with their norms, and writes the
guided row. Plain torch makes some ten passes over float32 copies of both outputs. The arithmetic is
that of `normalized_attention_guidance`; only the order of the norms' sums differs.

Import it only where Triton is installed.
"""

# Triton reads the kernel's source, and takes the annotation of a parameter for one of its types.
# ruff: noqa: ANN001
# pyright: reportMissingParameterType=false

from typing import Any, Literal, cast

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

_CHANNELS_A_WARP = 512  # 16 float32 values of each row a thread
_MAX_WARPS = 16

jit = cast(Any, triton).jit


def guide_rows(
    positive_BLD: torch.Tensor,
    negative_BLD: torch.Tensor,
    nag_scale: float | torch.Tensor,
    nag_tau: float | torch.Tensor,
    nag_alpha: float | torch.Tensor,
    nag_norm: Literal["l1", "l2"],
) -> torch.Tensor:
    """Return the guided rows, (B, L, D), contiguous.

    The arguments are those of `normalized_attention_guidance`; no dtype is wider than float32, and
    strengths that are tensors lie on the CPU, so that reading one waits for no device.
    """
    num_channels = positive_BLD.shape[-1]
    positive, negative = (
        each.reshape(-1, num_channels)
        for each in (positive_BLD, negative_BLD.expand_as(positive_BLD))
    )
    result = torch.empty(positive.shape, dtype=positive.dtype, device=positive.device)
    if not result.numel():
        return result.view(positive_BLD.shape)
    block = cast(int, cast(Any, triton).next_power_of_2(num_channels))
    with torch.cuda.device_of(positive):
        _guide_row[(positive.shape[0],)](
            positive,
            negative,
            result,
            positive.stride(0),
            positive.stride(1),
            negative.stride(0),
            negative.stride(1),
            num_channels,
            float(nag_scale),
            float(nag_tau),
            float(nag_alpha),
            torch.finfo(torch.float32).tiny,
            IS_L1=nag_norm == "l1",
            BLOCK=block,
            num_warps=num_warps_for(block),
            # Multiplications and additions round one by one, as in torch; memory takes the time.
            enable_fp_fusion=False,
        )
    return result.view(positive_BLD.shape)


def num_warps_for(block: int) -> int:
    """Return the number of warps that share a row of so many channels, a power of two."""
    return min(_MAX_WARPS, max(1, block // _CHANNELS_A_WARP))


@jit
def _guide_row(
    positive_ptr,
    negative_ptr,
    result_ptr,
    positive_row,
    positive_channel,
    negative_row,
    negative_channel,
    num_channels,
    nag_scale,
    nag_tau,
    nag_alpha,
    smallest_norm,
    IS_L1: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    inside = channel < num_channels
    positive_at = positive_ptr + row * positive_row + channel * positive_channel
    negative_at = negative_ptr + row * negative_row + channel * negative_channel
    positive = tl.load(positive_at, mask=inside, other=0.0).to(tl.float32)
    negative = tl.load(negative_at, mask=inside, other=0.0).to(tl.float32)
    guided = nag_scale * positive - (nag_scale - 1.0) * negative
    if IS_L1:
        positive_norm = tl.sum(tl.abs(positive), axis=0)
        guided_norm = tl.sum(tl.abs(guided), axis=0)
    else:
        positive_norm = tl.sqrt_rn(tl.sum(positive * positive, axis=0))
        guided_norm = tl.sqrt_rn(tl.sum(guided * guided, axis=0))
    # As in torch, NaN is the larger and the smaller of any two, so it reaches the whole row.
    guided_norm = tl.maximum(guided_norm, smallest_norm, propagate_nan=tl.PropagateNan.ALL)
    shrink = tl.div_rn(nag_tau * positive_norm, guided_norm)
    guided = guided * tl.minimum(shrink, 1.0, propagate_nan=tl.PropagateNan.ALL)
    result = nag_alpha * guided + (1.0 - nag_alpha) * positive
    tl.store(
        result_ptr + row * num_channels + channel,
        result.to(result_ptr.dtype.element_ty),
        mask=inside,
    )
