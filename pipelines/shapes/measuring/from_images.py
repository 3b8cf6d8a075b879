"""Clips that a Shapes model renders from a first image, and the judge's verdicts on them.

Shapes and colours of the images are evenly spread; prompts leave both to the image, mostly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import nag
from pipelines.shapes.captions import NAMED_SHARES_WITH_IMAGE, sentence
from pipelines.shapes.first_image import as_picture, draw_image, first_image
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.measuring.rendering import Sampling, guided, to_uint8
from pipelines.shapes.training.text import MAX_TOKENS
from pipelines.shapes.world import (
    ATTRIBUTES,
    COLOURS,
    NUM_FRAMES,
    SHAPES,
    SIZE_PX,
    ShapesClip,
    sample_clip,
)

FROM_IMAGE = ("colour", "shape")  # an image decides them, as a frame or as a cut-out
MAX_SAME_DIFFERENCE = 8.0  # mean over all pixels, in levels of 255


@dataclass(frozen=True)
class ImageTask:
    """One clip to render from a first image.

    Args:
        clip: the true clip that the image begins; the prompt fits it.
        is_cut_out: the image has the backdrop and not the background of the clip.
        named: attributes that the prompt names, with their values.
    """

    clip: ShapesClip
    is_cut_out: bool
    named: dict[str, str]
    prompt: str
    seed: int


@dataclass(frozen=True)
class FromImage:
    """A verdict on a clip, and the mean difference (0..255) of its first frame from the image."""

    verdict: Verdict
    first_frame_difference: float

    def keeps(self, task: ImageTask) -> bool:
        """Return True if shape and colour are those of the image."""
        return all(getattr(self.verdict, name) == getattr(task.clip, name) for name in FROM_IMAGE)

    def follows(self, task: ImageTask) -> bool:
        """Return True if everything that the prompt names is there."""
        return all(getattr(self.verdict, name) == value for name, value in task.named.items())


def make_image_tasks(
    num_clips: int,
    seed: int,
    *,
    is_cut_out: bool,
    always: tuple[str, ...] = (),
    never: tuple[str, ...] = (),
) -> list[ImageTask]:
    """Draw images and prompts.

    Args:
        always: attributes that each prompt names.
        never: attributes that no prompt names; the others are named as often as in training.
    """
    generator = torch.Generator().manual_seed(seed)
    colours, tasks = tuple(COLOURS), list[ImageTask]()
    for index in range(num_clips):
        clip = sample_clip(
            generator,
            colour=colours[index % len(colours)],
            shape=SHAPES[index // len(colours) % len(SHAPES)],
        )
        shares = torch.rand(len(ATTRIBUTES), generator=generator).tolist()
        named = {
            name: getattr(clip, name)
            for name, share in zip(ATTRIBUTES, shares, strict=True)
            if name not in never and (name in always or share < NAMED_SHARES_WITH_IMAGE[name])
        }
        prompt = sentence(named, generator)
        tasks.append(ImageTask(clip, is_cut_out, named, prompt, seed * 100_000 + index))
    return tasks


@torch.no_grad()
def render_from_images(
    pipeline: Any,
    tasks: list[ImageTask],
    sampling: Sampling,
    negative: tuple[str, nag.NagParams] | None = None,
) -> Iterator[FromImage]:
    """Render the tasks one at a time and judge the clips.

    Args:
        negative: a negative prompt and its NAG parameters. Classifier-free guidance, if it is on,
            uses an empty negative prompt with and without NAG.
    """
    with guided(pipeline, negative):
        for task in tasks:
            image = first_image(task.clip, cut_out=task.is_cut_out)
            output: Any = pipeline(
                as_picture(image),
                task.prompt,
                height=SIZE_PX,
                width=SIZE_PX,
                num_frames=NUM_FRAMES,
                num_inference_steps=sampling.num_steps,
                guidance_scale=sampling.guidance_scale,
                generator=torch.Generator().manual_seed(task.seed),
                output_type="pt",
                max_sequence_length=MAX_TOKENS,
            )
            (frames,) = to_uint8(output.frames.permute(0, 2, 1, 3, 4) * 2 - 1)
            drawn = draw_image(image).numpy().astype(np.float32)
            yield FromImage(judge(frames), float(np.abs(frames[0] - drawn).mean()))
