"""First images for training, encoded as `WanImageToVideoPipeline` encodes them.

The transformer gets the noisy latents, a mask of the frames that are given, and the latents of a
clip with the image as its first frame and mid-gray (zero) after it.

Shape suffixes: N images, B clips, C latent channels, F latent frames, H and W cells or pixels.
"""

from collections.abc import Iterable
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from pipelines.shapes.first_image import FirstImage, draw_image, first_image
from pipelines.shapes.latents import normalise
from pipelines.shapes.world import NUM_FRAMES, ShapesClip

CUT_OUT_SHARE = 0.5
BATCH_SIZE = 80


@torch.no_grad()
def encode_images(autoencoder: AutoencoderKLWan, images: list[FirstImage]) -> torch.Tensor:
    """Return the normalised latents of the images with zero frames after them, (N, C, F, H, W)."""
    chunks: list[torch.Tensor] = []
    for first in range(0, len(images), BATCH_SIZE):
        drawn = [draw_image(image).permute(2, 0, 1) for image in images[first : first + BATCH_SIZE]]
        video_NCTHW = torch.zeros(len(drawn), 3, NUM_FRAMES, *drawn[0].shape[1:])
        video_NCTHW[:, :, 0] = torch.stack(drawn).float() / 127.5 - 1
        # as for the clips: bfloat16 is four times as fast and moves the latents by 1 %
        with torch.autocast("cpu", dtype=torch.bfloat16):
            encoded: Any = autoencoder.encode(video_NCTHW)
        chunks.append(normalise(autoencoder, encoded.latent_dist.mode().float()))
    return torch.cat(chunks)


def with_mask(latents_BCFHW: torch.Tensor, frames_per_cell: int = 4) -> torch.Tensor:
    """Put the mask before the latents, (B, 4 + C, F, H, W): one in the cells of the first frame."""
    num_clips, _, *grid = latents_BCFHW.shape
    mask = latents_BCFHW.new_zeros(num_clips, frames_per_cell, *grid)
    mask[:, :, 0] = 1
    return torch.cat([mask, latents_BCFHW], dim=1)


class Conditions:
    """The encoded first images of a set of clips, each as a frame and as a cut-out."""

    def __init__(self, autoencoder: AutoencoderKLWan, clips: Iterable[ShapesClip]) -> None:
        images = dict.fromkeys(
            first_image(clip, cut_out=cut_out) for clip in clips for cut_out in (False, True)
        )
        self._rows = {image: row for row, image in enumerate(images)}
        self._latents_NCFHW = encode_images(autoencoder, list(images)).half()

    def draw(self, clips: list[ShapesClip], generator: torch.Generator) -> torch.Tensor:
        """Return conditions of the clips, (B, 4 + C, F, H, W); a share of the images is cut out."""
        is_cut_out_B = torch.rand(len(clips), generator=generator) < CUT_OUT_SHARE
        rows = [
            self._rows[first_image(clip, cut_out=cut_out)]
            for clip, cut_out in zip(clips, is_cut_out_B.tolist(), strict=True)
        ]
        return with_mask(self._latents_NCFHW[rows].float())
