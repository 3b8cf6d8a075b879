"""Images that a Shapes image model draws for the tasks of negative prompts, and their verdicts."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nag
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.evaluation.negation import CASES, NegationTask, Series, draw_tasks
from pipelines.shapes.images import IMAGE_ATTRIBUTES, judge_image
from pipelines.shapes.judge import Verdict
from pipelines.shapes.training.images.models import ImageModel
from pipelines.shapes.world import SIZE_PX

BATCH_SIZE = 30
FEW_STEPS, FULL_STEPS = 4, 25  # with the LoRA, and without
GuidanceParams = nag.NagParams | nag.VsfParams | nag.NasaParams


@dataclass(frozen=True)
class Method:
    """One way to use a negative prompt.

    Args:
        guidance_scale: classifier-free guidance; 1 for a single pass a step.
        params: guidance by attention; None for none.
        is_negative_in_cfg: classifier-free guidance takes the negative prompt instead of an empty
            text.
    """

    name: str
    guidance_scale: float = 1.0
    params: GuidanceParams | None = None
    is_negative_in_cfg: bool = False


def load_image_pipeline(model: ImageModel, num_steps: int, weights: Path | None = None) -> Any:
    """Load the stock pipeline, for few steps with the model's LoRA.

    Args:
        weights: the folder of folders; None for the packaged ones.
    """
    folder = weights or PACKAGED_WEIGHTS
    pipeline = model.pipeline_class.from_pretrained(
        folder / model.name, dtype=torch.float32, use_safetensors=True
    )
    if num_steps <= FEW_STEPS:
        pipeline.load_lora_weights(folder / f"{model.name}-4step")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image_tasks(num_tasks: int, series: Series = "measure") -> tuple[NegationTask, ...]:
    """Return the first tasks of each attribute and case, alternating; no prompt names a motion."""
    sequences = [
        draw_tasks(attribute, case, num_tasks, series, unnamed=("motion",))
        for attribute in IMAGE_ATTRIBUTES
        for case in CASES
    ]
    return tuple(task for task in chain.from_iterable(zip_longest(*sequences)) if task is not None)


def _guided(
    model: ImageModel, pipeline: Any, params: GuidanceParams | None, negatives: list[str]
) -> AbstractContextManager[Any]:
    if params is None:
        return nullcontext()
    negative: list[str] | nag.NegativeText = negatives
    if isinstance(params, nag.VsfParams) and model.words is not None:
        text = model.encode(pipeline, negatives)
        mask = model.words(pipeline, negatives)
        negative = nag.NegativeText(text.embeds, mask, pooled=text.pooled)
    return nag.guide(pipeline, negative, params, **model.call_arguments)


@torch.no_grad()
def draw_answers(
    model: ImageModel,
    pipeline: Any,
    tasks: tuple[NegationTask, ...],
    method: Method,
    num_steps: int,
) -> Iterator[Verdict]:
    """Draw an image for each task and judge it."""
    for first in range(0, len(tasks), BATCH_SIZE):
        batch = tasks[first : first + BATCH_SIZE]
        negatives = [task.negative_prompt for task in batch]
        arguments = {model.guidance_argument: method.guidance_scale, **model.call_arguments}
        if method.guidance_scale != 1:
            arguments["negative_prompt"] = (
                negatives if method.is_negative_in_cfg else [""] * len(batch)
            )
        with _guided(model, pipeline, method.params, negatives):
            output: Any = pipeline(
                [task.prompt for task in batch],
                height=SIZE_PX,
                width=SIZE_PX,
                num_inference_steps=num_steps,
                generator=[torch.Generator().manual_seed(task.seed) for task in batch],
                output_type="np",
                **arguments,
            )
        for image_HWC in (output.images * 255).round().astype(np.uint8):
            yield judge_image(image_HWC)
