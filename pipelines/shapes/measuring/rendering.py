"""Prompts drawn from the Shapes world, the clips rendered from them, and the judge's verdicts."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nag
from pipelines.catalog.files.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.catalog.model_yaml import load_model_config
from pipelines.shapes.captions import sentence
from pipelines.shapes.evaluation.negation import draw_named
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.training.models import ShapesModel
from pipelines.shapes.training.text import MAX_TOKENS
from pipelines.shapes.world import FPS, NUM_FRAMES, SIZE_PX

BATCH_SIZE = 20


@dataclass(frozen=True)
class Sampling:
    """The number of steps and the guidance of a rendering."""

    num_steps: int
    guidance_scale: float

    def __str__(self) -> str:
        return f"{self.num_steps} steps"


@dataclass(frozen=True)
class Task:
    """One clip to render: the attributes that its prompt names, the prompt and the seed."""

    named: dict[str, str]
    prompt: str
    seed: int


def load_pipeline(model: ShapesModel, weights: Path | None = None) -> Any:
    """Load a Shapes pipeline with the flow shift of its YAML; None takes the packaged weights."""
    pipeline = model.pipeline_class.from_pretrained(
        weights or PACKAGED_WEIGHTS / model.name, dtype=torch.float32, use_safetensors=True
    )
    flow_shift = load_model_config(model_paths()[model.name]).scheduler.flow_shift
    if flow_shift is not None:
        pipeline.scheduler = type(pipeline.scheduler).from_config(
            pipeline.scheduler.config, flow_shift=flow_shift
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def to_uint8(video_BCTHW: torch.Tensor) -> np.ndarray:
    """Convert values in -1..1 to (B, T, H, W, 3) uint8."""
    levels = ((video_BCTHW.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


def make_tasks(num_clips: int, seed: int, left_open: str | None = None) -> list[Task]:
    """Draw prompts that name a random part of the attributes, but never `left_open`."""
    generator = torch.Generator().manual_seed(seed)
    tasks: list[Task] = []
    while len(tasks) < num_clips:
        named = draw_named(generator, left_open)
        if named:
            tasks.append(Task(named, sentence(named, generator), seed * 100_000 + len(tasks)))
    return tasks


def guided(
    pipeline: Any, negative: tuple[str, nag.NagParams] | None
) -> AbstractContextManager[Any]:
    """Guide a pipeline away from a negative prompt inside the `with`; None leaves it as it is."""
    if negative is None:
        return nullcontext()
    return nag.guide(pipeline, *negative, max_sequence_length=MAX_TOKENS)


@torch.no_grad()
def render(
    pipeline: Any,
    tasks: list[Task],
    sampling: Sampling,
    negative: tuple[str, nag.NagParams] | None = None,
) -> Iterator[Verdict]:
    """Render the tasks and judge the clips.

    Args:
        negative: a negative prompt and its NAG parameters. Classifier-free guidance, if it is on,
            uses an empty negative prompt with and without NAG.
    """
    frame_rate = (
        {"frame_rate": FPS} if "frame_rate" in signature(pipeline.__call__).parameters else {}
    )
    with guided(pipeline, negative):
        for first in range(0, len(tasks), BATCH_SIZE):
            batch = tasks[first : first + BATCH_SIZE]
            output: Any = pipeline(
                [task.prompt for task in batch],
                height=SIZE_PX,
                width=SIZE_PX,
                num_frames=NUM_FRAMES,
                num_inference_steps=sampling.num_steps,
                guidance_scale=sampling.guidance_scale,
                generator=[torch.Generator().manual_seed(task.seed) for task in batch],
                output_type="pt",
                max_sequence_length=MAX_TOKENS,
                **frame_rate,
            )
            for frames in to_uint8(output.frames.permute(0, 2, 1, 3, 4) * 2 - 1):
                yield judge(frames)


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags) if flags else float("nan")


def followed(
    tasks: list[Task], verdicts: list[Verdict], attribute: str | None = None
) -> list[bool]:
    """Return True or False for each attribute that a prompt names, or for one of them."""
    return [
        getattr(verdict, name) == value
        for task, verdict in zip(tasks, verdicts, strict=True)
        for name, value in task.named.items()
        if attribute in (None, name)
    ]
