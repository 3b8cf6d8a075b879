"""The still images of the Shapes world: their members, their captions and their judge.

An image is a member of the world that stands still, seen for one frame: 6 colours, 4 shapes, 3
backgrounds and 25 places, 1,800 images in all.

Shape suffixes: N images, H and W pixels, C = 3 channels.
"""

import numpy as np
import torch

from pipelines.shapes.captions import NAMED_SHARE, caption
from pipelines.shapes.first_image import draw_image, first_image
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.world import ATTRIBUTES, ShapesClip, all_clips, sample_clip

STILL = "still"
IMAGE_ATTRIBUTES: dict[str, tuple[str, ...]] = {
    name: values for name, values in ATTRIBUTES.items() if name != "motion"
}
# Captions of images never speak of motion.
IMAGE_NAMED_SHARES = {name: NAMED_SHARE * (name != "motion") for name in ATTRIBUTES}


def all_images() -> list[ShapesClip]:
    """Return every member: 1,800 images."""
    return [clip for clip in all_clips() if clip.motion == STILL]


def sample_image(generator: torch.Generator, **fixed: str) -> ShapesClip:
    """Draw a member uniformly.

    Args:
        fixed: attributes that are not drawn, such as `colour="red"`.
    """
    return sample_clip(generator, anywhere=False, motion=STILL, **fixed)


def image_caption(image: ShapesClip, generator: torch.Generator) -> str:
    """Describe an image; a random part of its attributes is named, perhaps none."""
    return caption(image, generator, IMAGE_NAMED_SHARES)


def draw_images(images: list[ShapesClip]) -> torch.Tensor:
    """Draw images, channels first: (N, C, H, W) uint8."""
    return torch.stack([draw_image(first_image(image)).permute(2, 0, 1) for image in images])


def judge_image(image_HWC: np.ndarray) -> Verdict:
    """Read an image; its motion is always "still".

    Args:
        image_HWC: (64, 64, 3) uint8.
    """
    return judge(np.stack([image_HWC, image_HWC]))
