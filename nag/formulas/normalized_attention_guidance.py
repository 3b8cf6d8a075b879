"""The formula of Normalized Attention Guidance, and nothing else.

Source: Chen, Bandyopadhyay, Zou, Song, *Normalized Attention Guidance*, arXiv 2505.21179, section 3.3.
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
    """Pushes the positive attention output away from the negative one, within a bound on its norm.

    Args:
        positive_BLD: attention output for the prompt, heads merged, before the output projection: (B, L, D).
        negative_BLD: the same queries' output for the negative prompt: (B, L, D).
        nag_scale: extrapolation; 1 is none. As 0-dim tensors the three do not force a compiled graph to be rebuilt.
        nag_tau: bound on the guided norm over the positive norm, per token.
        nag_alpha: share of the guided output in the result.
        nag_norm: L1 as published, or L2 as in the author's Flux code.

    Returns:
        (B, L, D) in the dtype of `positive_BLD`. All arithmetic is float32: in float16 the L1 norm of 5120 channels
        overflows at a mean of 12.8. Where both inputs are zero the result is zero.
    """
    positive, negative = positive_BLD.float(), negative_BLD.float()
    guided = nag_scale * positive - (nag_scale - 1) * negative
    order = 1 if nag_norm == "l1" else 2
    positive_norm = torch.linalg.vector_norm(positive, order, dim=-1, keepdim=True)
    guided_norm = torch.linalg.vector_norm(guided, order, dim=-1, keepdim=True)
    # min(1, tau / r) with r = guided_norm / positive_norm: shrinks and never enlarges; the inner clamp keeps 0/0 away
    guided = guided * (nag_tau * positive_norm / guided_norm.clamp_min(_SMALLEST_NORM)).clamp_max(
        1.0
    )
    return (nag_alpha * guided + (1 - nag_alpha) * positive).to(positive_BLD.dtype)
