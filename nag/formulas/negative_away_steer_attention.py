"""The formula of Negative-Away Steer Attention, and nothing else.

Source: Nguyen, Nguyen, Dao, Nguyen, Pham, Tran, Tran, *Supercharged One-step Text-to-Image
Diffusion Models with Negative Prompts*, arXiv 2412.02687.
"""

import torch


def negative_away_steer_attention(
    positive_BLD: torch.Tensor, negative_BLD: torch.Tensor, nasa_scale: float | torch.Tensor
) -> torch.Tensor:
    """Subtract a share of the negative attention output from the positive one.

    Nothing bounds the result.

    Args:
        positive_BLD: attention output for the prompt, (B, L, D): heads merged, before the output
            projection.
        negative_BLD: output of the same queries for the negative prompt, (B, L, D).
        nasa_scale: share to subtract; 0 subtracts nothing. A 0-dim tensor can change without a new
            compiled graph.

    Returns:
        (B, L, D) in the dtype of `positive_BLD`; the arithmetic is float32.

    Example:
        >>> positive, negative = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[-1.0, 1.0]]])
        >>> negative_away_steer_attention(positive, negative, 0.5)
        tensor([[[1.5000, 0.5000]]])
    """
    return (positive_BLD.float() - nasa_scale * negative_BLD.float()).to(positive_BLD.dtype)
