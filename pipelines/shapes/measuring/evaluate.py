"""Measure a Shapes model against its training targets, and NAG on it.

`python -m pipelines.shapes.measuring.evaluate MODEL`

Prints one table, a line per measurement with its target, and exits with 1 if a target is missed.
All seeds are fixed. Clips are rendered in batches for speed; the farm renders them one at a time.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nag
from pipelines.catalog.model_config import load_model_config
from pipelines.catalog.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.shapes.captions import phrase, sentence
from pipelines.shapes.evaluation.negation import draw_named
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.training.models import MODELS, ShapesModel
from pipelines.shapes.training.text import MAX_TOKENS
from pipelines.shapes.world import (
    ATTRIBUTES,
    FPS,
    NUM_FRAMES,
    SIZE_PX,
    ShapesClip,
    render_uint8,
    sample_clip,
)

BATCH_SIZE = 20
NEGATED = ("colour", "shape", "background")


@dataclass(frozen=True)
class Row:
    """One measurement: the value found, the target, and the number of clips."""

    name: str
    found: str
    target: str
    num_clips: int
    is_met: bool


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


def to_uint8(video_BCTHW: torch.Tensor) -> np.ndarray:
    """Convert values in -1..1 to (B, T, H, W, 3) uint8."""
    levels = ((video_BCTHW.float() + 1) * 127.5).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 4, 1).numpy()


def is_right(verdict: Verdict, expected: dict[str, str]) -> bool:
    return all(getattr(verdict, attribute) == value for attribute, value in expected.items())


def attributes_of(clip: ShapesClip) -> dict[str, str]:
    return {attribute: getattr(clip, attribute) for attribute in ATTRIBUTES}


def measure_judge(num_clips: int) -> Row:
    generator = torch.Generator().manual_seed(101)
    clips = [sample_clip(generator) for _ in range(num_clips)]
    videos_NTHWC = render_uint8(clips).permute(0, 2, 3, 4, 1).numpy()
    verdicts = [judge(video) for video in videos_NTHWC]
    right = sum(
        v.is_clean and is_right(v, attributes_of(c)) for v, c in zip(verdicts, clips, strict=True)
    )
    share = right / num_clips
    return Row("judge right on true clips", f"{share:.1%}", ">= 99.5%", num_clips, share >= 0.995)


@torch.no_grad()
def measure_autoencoder(model: ShapesModel, pipeline: Any, num_clips: int) -> list[Row]:
    generator = torch.Generator().manual_seed(102)
    clips = [sample_clip(generator) for _ in range(num_clips)]
    true_NCTHW = render_uint8(clips)
    decoded = [
        pipeline.vae.decode(chunk, return_dict=False)[0]
        for chunk in model.encode_clips(pipeline.vae, true_NCTHW).split(BATCH_SIZE)
    ]
    made_NTHWC = to_uint8(torch.cat(decoded))
    true_NTHWC = true_NCTHW.permute(0, 2, 3, 4, 1).numpy()
    error_N = ((made_NTHWC.astype(np.float32) - true_NTHWC) ** 2).mean(axis=(1, 2, 3, 4))
    psnr_dB = float((10 * np.log10(255**2 / error_N)).mean())
    read = np.mean(
        [is_right(judge(v), attributes_of(c)) for v, c in zip(made_NTHWC, clips, strict=True)]
    )
    return [
        Row(
            "autoencoder round trip, mean PSNR",
            f"{psnr_dB:.1f} dB",
            ">= 30 dB",
            num_clips,
            psnr_dB >= 30,
        ),
        Row("judge right after the round trip", f"{read:.1%}", "", num_clips, is_met=True),
    ]


def make_tasks(num_clips: int, seed: int, left_open: str | None = None) -> list[Task]:
    """Draw prompts that name a random part of the attributes, but never `left_open`."""
    generator = torch.Generator().manual_seed(seed)
    tasks: list[Task] = []
    while len(tasks) < num_clips:
        named = draw_named(generator, left_open)
        if named:
            tasks.append(Task(named, sentence(named, generator), seed * 100_000 + len(tasks)))
    return tasks


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
    guidance: Any = (
        nullcontext()
        if negative is None
        else nag.guide(pipeline, *negative, max_sequence_length=MAX_TOKENS)
    )
    frame_rate = (
        {"frame_rate": FPS} if "frame_rate" in signature(pipeline.__call__).parameters else {}
    )
    with guidance:
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


def measure_following(
    pipeline: Any, num_clips: int, sampling: Sampling, target: float
) -> list[Row]:
    tasks = make_tasks(num_clips, seed=103)
    verdicts = list(render(pipeline, tasks, sampling))
    rows: list[Row] = []
    for attribute in ATTRIBUTES:
        flags = followed(tasks, verdicts, attribute)
        found = share(flags)
        rows.append(
            Row(
                f"{attribute} followed, {sampling}",
                f"{found:.1%}",
                f">= {target:.0%}",
                len(flags),
                found >= target,
            )
        )
    clean = share([verdict.is_clean for verdict in verdicts])
    rows.append(Row(f"clean, {sampling}", f"{clean:.1%}", "", num_clips, is_met=True))
    return rows


def measure_nag(
    pipeline: Any, attribute: str, num_clips: int, sampling: Sampling, params: nag.NagParams
) -> list[Row]:
    """Measure how often each value of an attribute appears without and with NAG against it.

    The prompts leave the attribute open.
    """
    tasks = make_tasks(num_clips, seed=104, left_open=attribute)
    plain = list(render(pipeline, tasks, sampling))
    kept_before = share(followed(tasks, plain))
    rows: list[Row] = []
    kept: list[bool] = []
    clean: list[bool] = []
    for value in ATTRIBUTES[attribute]:
        guided = list(render(pipeline, tasks, sampling, (phrase(attribute, value), params)))
        before, after = (
            share([getattr(verdict, attribute) == value for verdict in some])
            for some in (plain, guided)
        )
        name = f"NAG against {phrase(attribute, value)}, {sampling}: its share"
        rows.append(
            Row(name, f"{before:.1%} -> {after:.1%}", "<= a fifth", num_clips, after <= before / 5)
        )
        kept += followed(tasks, guided)
        clean += [verdict.is_clean for verdict in guided]
    name, found = (
        f"NAG against a {attribute}, {sampling}",
        f"{kept_before:.1%} -> {share(kept):.1%}",
    )
    is_met = kept_before - share(kept) <= 0.03
    rows.append(Row(f"{name}: named kept", found, "loses <= 3 points", len(clean), is_met))
    found = f"{share([verdict.is_clean for verdict in plain]):.1%} -> {share(clean):.1%}"
    rows.append(Row(f"{name}: clean", found, "", len(clean), is_met=True))
    return rows


def print_table(rows: list[Row]) -> None:
    cells = [("measurement", "found", "target", "clips", "")]
    cells += [
        (row.name, row.found, row.target, f"{row.num_clips}", "met" if row.is_met else "MISSED")
        for row in rows
    ]
    cells = [(*line[:4], line[4] if line[2] else "") for line in cells]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    for line in cells:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        )


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


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure a Shapes model (about 8 minutes on two cores)."
    )
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument(
        "--weights", type=Path, help="a diffusers folder (default: the packaged weights)"
    )
    parser.add_argument(
        "--clips",
        type=int,
        default=400,
        help="clips per measurement of prompt following (default: 400)",
    )
    parser.add_argument(
        "--nag-clips", type=int, default=80, help="clips per negated value (default: 80)"
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 8])
    arguments = parser.parse_args()
    model = MODELS[arguments.model]
    config = load_model_config(model_paths()[model.name])
    pipeline = load_pipeline(model, arguments.weights)
    rows = [measure_judge(1000), *measure_autoencoder(model, pipeline, 200)]
    for num_steps in arguments.steps:
        sampling = Sampling(num_steps, config.sampling.guidance_scale)
        rows += measure_following(
            pipeline, arguments.clips, sampling, 0.95 if num_steps >= 25 else 0.90
        )
    sampling = Sampling(arguments.steps[-1], config.sampling.guidance_scale)
    for attribute in NEGATED:
        rows += measure_nag(pipeline, attribute, arguments.nag_clips, sampling, config.nag)
    print_table(rows)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
