"""The formula of Negative-Away Steer Attention, and nothing else.

Source: Nguyen, Nguyen, Dao, Nguyen, Pham, Tran, Tran, *Supercharged One-step Text-to-Image Diffusion Models with
Negative Prompts*, arXiv 2412.02687.
"""

import torch


def negative_away_steer_attention(
    positive_BLD: torch.Tensor, negative_BLD: torch.Tensor, nasa_scale: float | torch.Tensor
) -> torch.Tensor:
    """Subtracts a share of the negative attention output from the positive one; nothing bounds the result.

    Args:
        positive_BLD: attention output for the prompt, heads merged, before the output projection: (B, L, D).
        negative_BLD: the same queries' output for the negative prompt: (B, L, D).
        nasa_scale: the share; 0 is none. As a 0-dim tensor it does not force a compiled graph to be rebuilt.

    Returns:
        (B, L, D) in the dtype of `positive_BLD`; the arithmetic is float32.
    """
    return (positive_BLD.float() - nasa_scale * negative_BLD.float()).to(positive_BLD.dtype)
