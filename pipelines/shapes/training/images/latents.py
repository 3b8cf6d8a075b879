"""The latents and texts of the Shapes images, as all three architectures share them.

The latents are those of shapes-wan: its autoencoder encodes the first frame of a clip alone, 8 x 8
pixels a cell. The denoisers train on them before an image autoencoder exists; `autoencoder` teaches
one the same latents.

Shape suffixes: N images, B captions, C channels, H and W cells, L tokens, D text channels.
"""

from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLWan

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.images import all_images, draw_images
from pipelines.shapes.latents import encode_clips

LATENT_SHAPE = (16, 8, 8)  # (C, H, W)
SAMPLING_FLOW_SHIFT = 3.0
NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True, eq=False)
class ImageText:
    """Captions as a pipeline encodes them."""

    embeds: torch.Tensor  # (B, L, D)
    pooled: torch.Tensor  # (B, D)

    def rows(self, rows: torch.Tensor) -> "ImageText":
        return ImageText(self.embeds[rows], self.pooled[rows])


@torch.no_grad()
def taught_latents() -> torch.Tensor:
    """Encode all images of the world, each channel of mean 0 and spread 1: (N, C, H, W) float32."""
    teacher = AutoencoderKLWan.from_pretrained(
        PACKAGED_WEIGHTS / "shapes-wan" / "vae", use_safetensors=True
    ).eval()
    pixels_NCTHW = draw_images(all_images()).unsqueeze(2)
    latents_NCHW = encode_clips(teacher, pixels_NCTHW, 120).squeeze(2)
    mean_C11 = latents_NCHW.mean(dim=(0, 2, 3))[:, None, None]
    std_C11 = latents_NCHW.std(dim=(0, 2, 3))[:, None, None]
    return (latents_NCHW - mean_C11) / std_C11
