"""SANA-WM of real classes at tiny size, with random weights and without encoders."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SanaWMPipeline, SanaWMTransformer3DModel
from PIL import Image

from tests.builders.tiny import TEXT_DIM
from tests.builders.tiny_joint import finished, randomized

CHANNELS, SPATIAL, TEMPORAL = 4, 8, 2


class FrameEncoder:
    """Stands for the autoencoder: the latents of an image are its mean colours."""

    spatial_compression_ratio, temporal_compression_ratio = SPATIAL, TEMPORAL
    dtype = torch.float32
    config = SimpleNamespace(scaling_factor=1.0)
    latents_mean, latents_std = torch.zeros(CHANNELS), torch.ones(CHANNELS)

    def encode(self, image_BCTHW: torch.Tensor) -> Any:
        means = torch.nn.functional.avg_pool3d(image_BCTHW, (1, SPATIAL, SPATIAL))
        latents = torch.cat([means, means[:, :1]], dim=1)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


def sana_wm_pipeline() -> Any:
    """Build one block of each kind of attention to the clip itself."""
    torch.manual_seed(0)
    transformer: Any = SanaWMTransformer3DModel(
        in_channels=CHANNELS,
        num_layers=2,
        hidden_size=32,
        num_attention_heads=2,
        softmax_every_n=2,
        linear_head_dim=16,
        mlp_ratio=1.0,
        chunk_plucker_channels=6 * TEMPORAL,
        chunk_plucker_post_attn_blocks=2,
        caption_channels=TEXT_DIM,
    )
    empty: Any = None
    vae: Any = FrameEncoder()
    return finished(
        SanaWMPipeline(
            tokenizer=empty,
            text_encoder=empty,
            vae=vae,
            transformer=randomized(transformer),
            scheduler=FlowMatchEulerDiscreteScheduler(),
        )
    )


def a_camera() -> dict[str, Any]:
    """Return a picture and a camera that moves forward, for five frames."""
    poses = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    poses[:, 2, 3] = np.linspace(0, 1, 5)
    return {
        "image": Image.new("RGB", (32, 32), (200, 100, 50)),
        "c2w": poses,
        "intrinsics": [16.0, 16.0, 16.0, 16.0],
        "height": 32,
        "width": 32,
        "num_frames": 5,
    }
