"""Measure a Shapes model against its training targets, and NAG on it.

`python -m pipelines.shapes.measuring.evaluate MODEL`

Prints one table, a line per measurement with its target, and exits with 1 if a target is missed.
All seeds are fixed. Clips are rendered in batches for speed; the farm renders them one at a time.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nag
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_yaml import load_model_config
from pipelines.shapes.captions import phrase
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.measuring.rendering import (
    BATCH_SIZE,
    Sampling,
    followed,
    load_pipeline,
    make_tasks,
    render,
    share,
    to_uint8,
)
from pipelines.shapes.training.models import MODELS, ShapesModel
from pipelines.shapes.world import ATTRIBUTES, ShapesClip, render_uint8, sample_clip

NEGATED = ("colour", "shape", "background")
FOLLOWED = 0.97  # share of the attributes that prompts name, in one pass
CLEAN = 0.90
ROUND_TRIP_DB = 32
NAG_STEPS = 8


@dataclass(frozen=True)
class Row:
    """One measurement: the value found, the target, and the number of clips."""

    name: str
    found: str
    target: str
    num_clips: int
    is_met: bool


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
            f">= {ROUND_TRIP_DB} dB",
            num_clips,
            psnr_dB >= ROUND_TRIP_DB,
        ),
        Row("judge right after the round trip", f"{read:.1%}", "", num_clips, is_met=True),
    ]


def measure_following(pipeline: Any, num_clips: int, sampling: Sampling) -> list[Row]:
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
                f">= {FOLLOWED:.0%}",
                len(flags),
                found >= FOLLOWED,
            )
        )
    clean = share([verdict.is_clean for verdict in verdicts])
    rows.append(
        Row(f"clean, {sampling}", f"{clean:.1%}", f">= {CLEAN:.0%}", num_clips, clean >= CLEAN)
    )
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
    parser.add_argument(
        "--guidance-scale",
        type=float,
        default=1.0,
        help="classifier-free guidance; 1 is one pass a step (default: 1)",
    )
    arguments = parser.parse_args()
    model = MODELS[arguments.model]
    config = load_model_config(model_paths()[model.name])
    pipeline = load_pipeline(model, arguments.weights)
    rows = [measure_judge(1000), *measure_autoencoder(model, pipeline, 200)]
    for num_steps in arguments.steps:
        sampling = Sampling(num_steps, arguments.guidance_scale)
        rows += measure_following(pipeline, arguments.clips, sampling)
    sampling = Sampling(NAG_STEPS, config.sampling.guidance_scale)
    for attribute in NEGATED:
        rows += measure_nag(pipeline, attribute, arguments.nag_clips, sampling, config.nag)
    print_table(rows)
    return 0 if all(row.is_met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
