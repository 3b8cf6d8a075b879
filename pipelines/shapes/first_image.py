"""The first image of a clip, from which an image-to-video model takes shape, colour and place.

An image is either the first frame itself, or a *cut-out*: the shape of the first frame on a
backdrop that no clip has. A cut-out leaves the background to the prompt.

Shape suffixes: H and W pixels, C = 3 channels.
"""

from dataclasses import dataclass

import torch
from PIL import Image

from pipelines.shapes.world import BACKGROUNDS, COLOURS, ShapesClip, coverage, pixel_grid

# A light gray as far from white as from gray (100 of 441 levels): the judge reads it as neither.
BACKDROP = (183, 183, 183)


@dataclass(frozen=True)
class FirstImage:
    """A shape at its place, on a background or, as a cut-out, on the backdrop.

    Args:
        background: a background of the world; None for the backdrop of a cut-out.
    """

    colour: str
    shape: str
    background: str | None
    xy_px: tuple[float, float]
    radius_px: float


def first_image(clip: ShapesClip, *, cut_out: bool = False) -> FirstImage:
    """Describe the first frame of a clip, or its cut-out."""
    background = None if cut_out else clip.background
    return FirstImage(clip.colour, clip.shape, background, clip.start_xy_px, clip.radius_px)


def draw_image(image: FirstImage) -> torch.Tensor:
    """Draw an image, (H, W, 3) uint8; without cut-out it equals the first frame of the clip."""
    x, y = pixel_grid()
    dx, dy = x - image.xy_px[0], y - image.xy_px[1]
    alpha_HW1 = coverage(image.shape, dx, dy, torch.tensor(image.radius_px)).unsqueeze(-1)
    rgb = BACKDROP if image.background is None else BACKGROUNDS[image.background]
    background_C = torch.tensor(rgb, dtype=torch.float32)
    foreground_C = torch.tensor(COLOURS[image.colour], dtype=torch.float32)
    drawn_HWC = background_C + alpha_HW1 * (foreground_C - background_C)
    return drawn_HWC.round().to(torch.uint8)


def as_picture(image: FirstImage) -> Image.Image:
    """Draw an image as the pipeline takes it."""
    return Image.fromarray(draw_image(image).numpy())
