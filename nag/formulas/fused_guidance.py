"""Normalized Attention Guidance by the fastest implementation that works on a device.

On a CUDA device this is a Triton kernel, or the formula as a compiled function, or plain torch. The
first one that runs there and agrees with plain torch is taken. On a CPU it is plain torch.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from typing import Literal

import torch

from nag.formulas.normalized_attention_guidance import normalized_attention_guidance

_log = logging.getLogger(__name__)

PLAIN_DEVICES = frozenset({"cpu", "meta"})  # plain torch is as fast there, or nothing is computed
KERNEL_DTYPES = frozenset({torch.bfloat16, torch.float16, torch.float32})

Guidance = Callable[
    [
        torch.Tensor,  # the arguments of `normalized_attention_guidance`, with strengths as tensors
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        torch.Tensor,
        Literal["l1", "l2"],
    ],
    torch.Tensor,
]


def fused_guidance(
    positive_BLD: torch.Tensor,
    negative_BLD: torch.Tensor,
    nag_scale: torch.Tensor,
    nag_tau: torch.Tensor,
    nag_alpha: torch.Tensor,
    nag_norm: Literal["l1", "l2"],
) -> torch.Tensor:
    """Guide as `normalized_attention_guidance` does, with the same result up to rounding.

    Strengths are 0-dim tensors on the CPU, so that reading one waits for no device. A call that
    needs gradients is left to plain torch.
    """
    arguments = (positive_BLD, negative_BLD, nag_scale, nag_tau, nag_alpha, nag_norm)
    needs_gradient = torch.is_grad_enabled() and (
        positive_BLD.requires_grad or negative_BLD.requires_grad
    )
    if positive_BLD.device.type in PLAIN_DEVICES or needs_gradient:
        return normalized_attention_guidance(*arguments)
    if torch.compiler.is_compiling():
        return guidance_op(*arguments)
    return implementation_on(positive_BLD.device, positive_BLD.dtype)(*arguments)


@torch.library.custom_op("nagfarm::normalized_attention_guidance", mutates_args=())
def guidance_op(
    positive_BLD: torch.Tensor,
    negative_BLD: torch.Tensor,
    nag_scale: torch.Tensor,
    nag_tau: torch.Tensor,
    nag_alpha: torch.Tensor,
    nag_norm: str,
) -> torch.Tensor:
    """Stand for the guidance in a compiled graph, which then serves every strength.

    The compiler does not look inside: the kernel makes fewer passes over memory than the formula
    that the compiler fuses.
    """
    norm: Literal["l1", "l2"] = "l1" if nag_norm == "l1" else "l2"
    guide = implementation_on(positive_BLD.device, positive_BLD.dtype)
    guided = guide(positive_BLD, negative_BLD, nag_scale, nag_tau, nag_alpha, norm)
    return guided.contiguous()  # as `register_fake` says; the kernel's result is so already


@guidance_op.register_fake
def _(positive_BLD: torch.Tensor, *_: object) -> torch.Tensor:
    return torch.empty(positive_BLD.shape, dtype=positive_BLD.dtype, device=positive_BLD.device)


@functools.cache
def implementation_on(device: torch.device, dtype: torch.dtype) -> Guidance:
    """Return the implementation for a device and dtype. The first call compiles, for seconds."""
    makers: dict[str, Callable[[], Guidance]] = {"a compiled function": _compiled}
    if device.type == "cuda" and dtype in KERNEL_DTYPES:
        makers = {"a Triton kernel": _kernel, **makers}
    return first_that_works(makers, device, dtype)


def first_that_works(
    makers: Mapping[str, Callable[[], Guidance]], device: torch.device, dtype: torch.dtype
) -> Guidance:
    """Return the first implementation that runs on the device and agrees with plain torch there.

    Args:
        makers: functions that return an implementation, by its name, the fastest first.
        device: each is tried there on one small input.
        dtype: dtype of that input.
    """
    for name, make in makers.items():
        try:
            guide = make()
            _check(guide, device, dtype)
        # Compilers fail with errors of any kind: no C compiler, no driver, an old Triton.
        except Exception as error:  # noqa: BLE001
            _log.warning(
                "NAG's formula is slower than it could be on %s: %s does not work there: %s",
                device,
                name,
                error,
            )
        else:
            return guide
    return normalized_attention_guidance


def _check(guide: Guidance, device: torch.device, dtype: torch.dtype) -> None:
    """Raise an error if the implementation fails or differs from plain torch."""
    generator = torch.Generator().manual_seed(0)
    positive, negative = (
        torch.randn(1, 3, 48, generator=generator).to(device, dtype) for _ in range(2)
    )
    strengths = (torch.tensor(9.0), torch.tensor(2.5), torch.tensor(0.25))
    torch.testing.assert_close(
        guide(positive, negative, *strengths, "l1"),
        normalized_attention_guidance(positive, negative, *strengths, "l1"),
    )


def _kernel() -> Guidance:
    from nag.formulas.guidance_kernel import guide_rows

    return guide_rows


def _compiled() -> Guidance:
    return torch.compile(normalized_attention_guidance, fullgraph=True, dynamic=True)
