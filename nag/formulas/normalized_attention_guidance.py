"""The formula of Normalized Attention Guidance, and nothing else.

Source: Chen, Bandyopadhyay, Zou, Song, *Normalized Attention Guidance*, arXiv 2505.21179,
section 3.3.
"""

from typing import Literal

import torch

_SMALLEST_NORM = torch.finfo(torch.float32).tiny


def normalized_attention_guidance(
    positive_BLD: torch.Tensor,
    negative_BLD: torch.Tensor,
    nag_scale: float | torch.Tensor,
    nag_tau: float | torch.Tensor,
    nag_alpha: float | torch.Tensor,
    nag_norm: Literal["l1", "l2"] = "l1",
) -> torch.Tensor:
    """Push the positive attention output away from the negative one, within a bound on its norm.

    Args:
        positive_BLD: attention output for the prompt, (B, L, D): heads merged, before the output
            projection.
        negative_BLD: output of the same queries for the negative prompt, (B, L, D).
        nag_scale: extrapolation, at least 1; 1 extrapolates nothing. This and the next two, as
            0-dim tensors, can change without a new compiled graph.
        nag_tau: bound on the guided norm over the positive norm, per token, above 0.
        nag_alpha: share of the guided output in the result, 0 to 1.
        nag_norm: L1 as published, or L2 as in the author's Flux code.

    Returns:
        (B, L, D) in the dtype of `positive_BLD`. All arithmetic is float32, since in float16 the
        L1 norm of 5120 channels overflows at a mean of 12.8. Where both inputs are zero, so is the
        result.

    Example:
        The extrapolated token (7, 1) has 4 times the norm of (1, 1); it is shrunk to twice of it.

        >>> positive, negative = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[-1.0, 1.0]]])
        >>> normalized_attention_guidance(positive, negative, 4.0, 2.0, 1.0)
        tensor([[[3.5000, 0.5000]]])
    """
    positive, negative = positive_BLD.float(), negative_BLD.float()
    guided = nag_scale * positive - (nag_scale - 1) * negative
    order = 1 if nag_norm == "l1" else 2
    positive_norm = torch.linalg.vector_norm(positive, order, dim=-1, keepdim=True)
    guided_norm = torch.linalg.vector_norm(guided, order, dim=-1, keepdim=True)
    # min(1, tau / r) with r = guided_norm / positive_norm: it shrinks and never enlarges. The inner
    # clamp avoids 0/0.
    shrink = (nag_tau * positive_norm / guided_norm.clamp_min(_SMALLEST_NORM)).clamp_max(1.0)
    guided = guided * shrink
    return (nag_alpha * guided + (1 - nag_alpha) * positive).to(positive_BLD.dtype)
