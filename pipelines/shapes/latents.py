"""The latents of clips, as a Wan autoencoder makes them.

Shape suffixes: N clips, C channels, T frames, F latent frames, H and W pixels or cells.
"""

from typing import Any

import torch
from diffusers import AutoencoderKLWan


@torch.no_grad()
def encode_clips(
    autoencoder: AutoencoderKLWan, clips_NCTHW: torch.Tensor, batch_size: int = 32
) -> torch.Tensor:
    """Encode clips without normalising: (N, C, F, H, W) float32, on the CPU.

    Args:
        clips_NCTHW: uint8 clips, as `world.render_uint8` returns them.
    """
    encoded: list[Any] = [
        autoencoder.encode(chunk.to(autoencoder.device).float() / 127.5 - 1)
        for chunk in clips_NCTHW.split(batch_size)
    ]
    return torch.cat([one.latent_dist.mode().cpu() for one in encoded])


def normalise(autoencoder: AutoencoderKLWan, latents_NCFHW: torch.Tensor) -> torch.Tensor:
    """Normalise latents as `WanPipeline` does before it denoises them."""
    config: Any = autoencoder.config
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    return (latents_NCFHW - mean) / std
