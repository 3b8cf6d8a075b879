"""From a video autoencoder's output to 8-bit frames."""

import numpy as np
import torch

from pipelines.errors import FrameCheckError


def to_uint8_frames(video_BCTHW: torch.Tensor) -> np.ndarray:
    """Rounds one video of values in -1..1 to bytes; diffusers' own export truncates and so darkens by half a level.

    Returns:
        (T, H, W, 3) uint8, contiguous.

    Raises:
        FrameCheckError: a value is NaN or infinite; as bytes it would be a black clip that looks like success.
    """
    if video_BCTHW.shape[0] != 1:
        raise ValueError(f"expected one video, not a batch of {video_BCTHW.shape[0]}")
    if not torch.isfinite(video_BCTHW).all():
        raise FrameCheckError("the decoded video holds NaN or infinite values")
    frames_THWC = video_BCTHW[0].float().permute(1, 2, 3, 0)
    return (
        ((frames_THWC + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().contiguous().numpy()
    )
