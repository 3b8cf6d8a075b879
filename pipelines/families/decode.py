"""The 8-bit frames of a video autoencoder's output."""

import numpy as np
import torch

from pipelines.errors import FrameCheckError


def to_uint8_frames(video_BCTHW: torch.Tensor) -> np.ndarray:
    """Round one video of values in -1..1 to bytes.

    Diffusers' own export truncates and so darkens by half a level.

    Returns:
        (T, H, W, 3) uint8, contiguous.

    Raises:
        FrameCheckError: a value is NaN or infinite. As bytes it would be a black clip that looks
            like success.
    """
    if video_BCTHW.shape[0] != 1:
        raise ValueError(f"expected one video, not a batch of {video_BCTHW.shape[0]}")
    if not torch.isfinite(video_BCTHW).all():
        raise FrameCheckError.of("the decoded video holds NaN or infinite values", "NaN")
    frames_THWC = video_BCTHW[0].float().permute(1, 2, 3, 0)
    return (
        ((frames_THWC + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous().numpy()
    )
