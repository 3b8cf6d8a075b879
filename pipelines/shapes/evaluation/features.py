"""What a clip of the Shapes world looks like, as a point: the statistics that a Frechet distance compares.

The encoder of the packaged autoencoder is the eye: trained on the world's true clips, frozen, and no part of any
guidance method. A point is each latent channel's mean, its spread over space, and its spread over time, so that a clip
that stands still lies elsewhere than one that moves.

Shapes of tensors: C channels, F latent frames, H and W cells; T frames.
"""

from functools import cache

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from pipelines.catalog.model_config import PACKAGED_WEIGHTS
from pipelines.shapes.training.wan import encode_clips, normalise


def use_one_thread() -> None:
    """For a process that shares the machine with others of its kind."""
    torch.set_num_threads(1)


@cache
def _encoder() -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(
        PACKAGED_WEIGHTS / "shapes-wan", subfolder="vae", use_safetensors=True
    )


def clip_features(frames: np.ndarray) -> tuple[float, ...]:
    """The clip's point: 48 numbers of about unit scale.

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
