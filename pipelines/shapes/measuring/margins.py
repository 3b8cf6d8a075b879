"""Measure how far good and broken clips are from the limits of the frame checks.

`python -m pipelines.shapes.measuring.margins`

Renders clips of each Shapes model as the farm does, breaks one of them in the ways that
`pipelines.frame_checks.checks` looks for, and prints one table a model. Exits with 1 if a good clip
is refused or a broken one passes.
"""

import argparse
import sys
from dataclasses import astuple, dataclass, fields

import numpy as np
import torch

from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import FrameCheckError
from pipelines.families.registry import load_model
from pipelines.frame_checks.checks import FrameStatistics, check_frames, measure_frames
from pipelines.frame_checks.latents import check_latents
from pipelines.frame_checks.limits import FrameLimits
from pipelines.request import GenerationRequest, SamplingParams, VideoFrames, VideoShape
from pipelines.shapes.measuring.rendering import make_tasks
from pipelines.video_model import VideoModel

MODEL_NAMES = ("shapes-wan", "shapes-ltx", "shapes-wan-4step", "shapes-ltx-4step")
STILL_PROMPTS = (
    "a red circle standing still",
    "a shape at rest on gray",
    "a cross that does not move",
)
SEED = 107
BLOCK_PX = 8
COLUMNS = ("spread", *(field.name for field in fields(FrameStatistics)))


@dataclass(frozen=True, eq=False)
class MadeClip:
    """A rendered or broken clip; `video` is None if the latents cannot be decoded."""

    name: str
    request: GenerationRequest
    latents: torch.Tensor
    video: VideoFrames | None

    @property
    def statistics(self) -> np.ndarray:
        """Statistics in the order of `COLUMNS`; NaN if there is nothing to measure."""
        if self.video is None:
            return np.full(len(COLUMNS), np.nan)
        spread = float(self.latents.square().mean().sqrt())
        return np.array([spread, *astuple(measure_frames(self.video.frames))])

    def refusal(self, limits: FrameLimits) -> FrameCheckError | None:
        """Return the error of the frame check that refuses the clip; None if it passes."""
        try:
            check_latents(self.latents, limits)
            if self.video is not None:
                check_frames(self.video, self.request.prompt, limits)
        except FrameCheckError as error:
            return error
        return None


def make_clips(family: VideoModel, config: ModelConfig, num_clips: int) -> list[MadeClip]:
    """Render still prompts, drawn prompts and, last, a moving one."""
    drawn = [task.prompt for task in make_tasks(num_clips, SEED)]
    moving = "a green square moving left on a gray background"
    clips: list[MadeClip] = []
    for seed, prompt in enumerate([*STILL_PROMPTS, *drawn, moving]):
        defaults = config.sampling
        request = GenerationRequest(
            prompt,
            "",
            VideoShape(defaults.num_frames, defaults.height, defaults.width),
            defaults.fps,
            SamplingParams(
                defaults.num_inference_steps,
                defaults.guidance_scale,
                config.scheduler.flow_shift,
                seed,
            ),
            config.nag,
            config.method,
        )
        latents = family.denoise(request, family.encode_text(request), lambda _step: None)
        video = family.decode(request, latents).result()
        clips.append(MadeClip("good", request, latents, video))
    return clips


def spoil(family: VideoModel, clip: MadeClip) -> list[MadeClip]:
    """Return the clip as broken renders leave it: in its latents, or in its frames."""
    assert clip.video is not None
    frames_THWC, random = clip.video.frames, np.random.default_rng(0)
    latents_with_nan = clip.latents.clone()
    latents_with_nan[(0,) * latents_with_nan.ndim] = torch.nan
    exploded = clip.latents * 100
    corners = random.integers(
        0, 2, frames_THWC[:, ::BLOCK_PX, ::BLOCK_PX].shape, np.uint8
    ) * np.uint8(255)
    spoilt_frames = {
        "black": np.zeros_like(frames_THWC),
        "grey": np.full_like(frames_THWC, 127),
        "frozen": np.ascontiguousarray(np.broadcast_to(frames_THWC[:1], frames_THWC.shape)),
        "white noise": random.integers(0, 256, frames_THWC.shape, np.uint8),
        "saturated blocks": corners.repeat(BLOCK_PX, axis=1).repeat(BLOCK_PX, axis=2),
    }
    return [
        MadeClip("one NaN latent", clip.request, latents_with_nan, None),
        MadeClip(
            "latents times 100",
            clip.request,
            exploded,
            family.decode(clip.request, exploded).result(),
        ),
        *(
            MadeClip(name, clip.request, clip.latents, VideoFrames(frames, clip.video.fps))
            for name, frames in spoilt_frames.items()
        ),
    ]


def table(limits: FrameLimits, good: list[MadeClip], spoilt: list[MadeClip]) -> list[str]:
    """Return Markdown lines: limits, range of the good clips, broken clips.

    Each broken clip stands with the check that refuses it.
    """
    statistics = np.stack([clip.statistics for clip in good])
    bounds = ["black", "flat", "frozen", "grain", "flicker", "saturation"]
    limit_cells = [_cell(getattr(limits, name)) for name in ("spread", *bounds)]
    rows = [
        ["", *COLUMNS, "refused by"],
        ["---"] * (len(COLUMNS) + 2),
        ["limit", *limit_cells, ""],
        [f"{len(good)} good clips, least", *map(_cell, statistics.min(axis=0)), ""],
        [f"{len(good)} good clips, most", *map(_cell, statistics.max(axis=0)), ""],
    ]
    for clip in spoilt:
        refusal = clip.refusal(limits)
        refused_by = "nothing" if refusal is None else refusal.check
        rows.append([clip.name, *map(_cell, clip.statistics), refused_by])
    return [f"| {' | '.join(row)} |" for row in rows]


def _cell(value: float | None) -> str:
    if value is None:
        return "none"
    return "" if np.isnan(value) else f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Measure good and broken clips against the limits of the frame checks."
    )
    parser.add_argument(
        "models", nargs="*", default=MODEL_NAMES, metavar="MODEL", help=", ".join(MODEL_NAMES)
    )
    parser.add_argument(
        "--clips", type=int, default=100, help="clips with drawn prompts per model (default: 100)"
    )
    arguments = parser.parse_args()
    num_wrong = 0
    for name in arguments.models:
        path = model_paths()[name]
        config = load_model_config(path)
        family = load_model(config, inspect_model(config, path), num_threads=1)
        good = make_clips(family, config, arguments.clips)
        spoilt = spoil(family, good[-1])
        print("\n".join(["", f"**{name}**", "", *table(config.frame_checks, good, spoilt)]))
        refused = [clip for clip in good if clip.refusal(config.frame_checks)]
        passed = [clip for clip in spoilt if not clip.refusal(config.frame_checks)]
        for clip in refused:
            print(f"refused: {clip.request.prompt}: {clip.refusal(config.frame_checks)}")
        num_wrong += len(refused) + len(passed)
    return 1 if num_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
