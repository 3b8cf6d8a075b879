"""The features of a Shapes clip that a Frechet distance compares.

They come from the encoder of the packaged shapes-wan autoencoder, which was trained on true clips,
is frozen, and is part of no guidance method. The features are mean, spread over space and spread
over time of each latent channel, so that still and moving clips differ.

Shape suffixes: C channels, F latent frames, H and W cells; T frames.
"""

from functools import cache

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.latents import encode_clips, normalise


def use_one_thread() -> None:
    """Limit torch to one thread, for a process that shares the machine with others of its kind."""
    torch.set_num_threads(1)


@cache
def _encoder() -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(
        PACKAGED_WEIGHTS / "shapes-wan", subfolder="vae", use_safetensors=True
    )


def clip_features(frames: np.ndarray) -> tuple[float, ...]:
    """Return 48 numbers of about unit scale.

    Args:
        frames: (T, 64, 64, 3) uint8.
    """
    autoencoder = _encoder()
    video_NCTHW = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2).unsqueeze(0)
    latents_CFHW = normalise(autoencoder, encode_clips(autoencoder, video_NCTHW))[0]
    in_space_C = latents_CFHW.mean(dim=1).flatten(1).std(dim=1)
    in_time_C = latents_CFHW.std(dim=1).flatten(1).mean(dim=1)
    point = torch.cat([latents_CFHW.flatten(1).mean(dim=1), in_space_C, in_time_C])
    return tuple(round(number, 5) for number in point.tolist())
