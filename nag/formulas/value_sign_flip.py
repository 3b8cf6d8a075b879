"""The formula of Value Sign Flip, and nothing else.

One attention over both prompts:
Z = softmax([Q K+^T / sqrt(d), Q K-^T / sqrt(d) - vsf_bias]) [V+ ; -vsf_scale V-].
Source: Guo, Du, *VSF: Simple, Efficient, and Effective Negative Guidance in Few-Step Image
Generation Models By Value Sign Flip*, arXiv 2508.10931.

Shapes: B batch, T text tokens of both prompts, N of them the negative prompt's, H heads, K channels
a head.
"""

import math

import torch
from torch.nn import functional


def value_sign_flip(
    value_BTHK: torch.Tensor,
    negative_mask_BN: torch.Tensor,
    vsf_scale: float | torch.Tensor,
    vsf_bias: float | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the values of one attention over both prompts, and the bias on its logits.

    Args:
        value_BTHK: values of the prompt's tokens, then those of the negative prompt's N tokens.
        negative_mask_BN: True for each of the N that is text. Padding must count for nothing: each
            token of it would take a share of the softmax away from the prompt, and push against
            the prompt with a value that means no word.
        vsf_scale: factor on the flipped values, at least 0. This and the next, as 0-dim tensors,
            can change without a new compiled graph.
        vsf_bias: amount subtracted from the logits of the negative prompt's tokens, at least 0.

    Returns:
        The values, and a bias (B, 1, 1, T) of the same dtype. A whole row is never -inf, since
        the prompt's tokens are at 0.

    Example:
        One token of the prompt, then two of the negative prompt, the last of them padding.

        >>> values = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        >>> flipped, bias = value_sign_flip(values, torch.tensor([[True, False]]), 1.5, 0.25)
        >>> flipped.flatten(), bias.flatten()
        (tensor([ 1.0000, -3.0000, -4.5000]), tensor([ 0.0000, -0.2500,    -inf]))
    """
    positive_length = value_BTHK.shape[1] - negative_mask_BN.shape[1]
    flipped_BNHK = (-vsf_scale * value_BTHK[:, positive_length:]).to(value_BTHK.dtype)
    bias_BN = torch.where(negative_mask_BN, -vsf_bias, -math.inf)
    bias_BT = functional.pad(bias_BN, (positive_length, 0)).to(value_BTHK.dtype)
    return torch.cat([value_BTHK[:, :positive_length], flipped_BNHK], dim=1), bias_BT[:, None, None]
