"""Measure what acceleration saves on the Shapes models, and what it changes.

`python -m pipelines.shapes.measuring.acceleration`

Renders the same clips with each setting, on the CPU and in one thread, and prints one table a
model. Times are processor time of this process, so other load does not count, as shares of the
plain model's time for the same clip.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import Any, TypeVar

import numpy as np

from pipelines.attention.block_cache import repeated_blocks
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.shapes.judge import Verdict, judge
from pipelines.shapes.measuring.rendering import followed, make_tasks, share

MODEL_NAMES = ("shapes-wan", "shapes-ltx")
SEED = 109
TILE_PX, STRIDE_PX = 48, 32  # the default tiles of diffusers are larger than these clips
THRESHOLDS = (0.05, 0.08, 0.15, 0.3)
COLUMNS = (
    "setting",
    "denoise",
    "decode",
    "blocks computed",
    "PSNR, mean",
    "PSNR, least",
    "prompt followed",
    "clean",
)

T = TypeVar("T")


@dataclass
class Setting:
    """One way to run a model, and its results so far.

    Args:
        num_computed: number of calls of a transformer block; stays 0 if blocks are compiled, since
            they cannot be counted then.
    """

    name: str
    family: DiffusersModel
    denoise_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    num_computed: int = 0

    def render(self, request: GenerationRequest) -> None:
        family = self.family
        embeddings = family.encode_text(request)
        latents, denoise_s = _timed(lambda: family.denoise(request, embeddings, lambda _step: None))
        video, decode_s = _timed(lambda: family.decode(request, latents).result())
        self.denoise_s.append(denoise_s)
        self.decode_s.append(decode_s)
        self.frames.append(video.frames)
        self.verdicts.append(judge(video.frames))

    def forget(self) -> None:
        """Drop the results of the first clip, which include compilation."""
        for results in (self.denoise_s, self.decode_s, self.frames, self.verdicts):
            results.clear()
        self.num_computed = 0

    def count_blocks(self) -> None:
        def count(*_: Any) -> None:
            self.num_computed += 1

        for block in repeated_blocks(self.family.pipeline.transformer):
            attention: Any = block.attn1
            attention.register_forward_hook(count)


def _timed(action: Callable[[], T]) -> tuple[T, float]:
    start = time.process_time()
    result = action()
    return result, time.process_time() - start


def make_settings(config: ModelConfig, weights: ModelWeights) -> list[Setting]:
    """Load the model once per setting, the plain model first."""
    asked: dict[str, dict[str, Any]] = {
        "plain": {},
        **{
            f"`first_block_cache: {threshold}`": {"first_block_cache": threshold}
            for threshold in THRESHOLDS
        },
        "`compile: true`": {"compile": True},
        "both, at 0.08": {"compile": True, "first_block_cache": 0.08},
        f"`vae_tiling: true`, tiles of {TILE_PX} px": {"vae_tiling": True},
    }
    settings: list[Setting] = []
    for name, fields in asked.items():
        family = load_model(replace(config, device="cpu", **fields), weights, num_threads=1)
        assert isinstance(family, DiffusersModel)
        setting = Setting(name, family)
        if not fields.get("compile"):
            setting.count_blocks()
        if fields.get("vae_tiling"):
            strides = {f"tile_sample_stride_{side}": STRIDE_PX for side in ("height", "width")}
            family.pipeline.vae.enable_tiling(TILE_PX, TILE_PX, **strides)
        settings.append(setting)
    return settings


def measure(
    config: ModelConfig, weights: ModelWeights, num_clips: int, num_steps: int
) -> list[str]:
    """Return one table as lines of Markdown."""
    tasks = make_tasks(num_clips, SEED)
    settings = make_settings(config, weights)
    defaults = config.sampling
    requests = [
        GenerationRequest(
            task.prompt,
            "",
            VideoShape(defaults.num_frames, defaults.height, defaults.width),
            defaults.fps,
            SamplingParams(
                num_steps, defaults.guidance_scale, config.scheduler.flow_shift, task.seed
            ),
            config.nag,
            config.method,
        )
        for task in tasks
    ]
    for setting in settings:
        setting.render(requests[0])
        setting.forget()
    for request in requests:
        for setting in settings:
            setting.render(request)
    plain = settings[0]
    rows: list[list[str]] = [list(COLUMNS), ["---"] * len(COLUMNS)]
    for setting in settings:
        psnr_dB = [
            _psnr(one, other) for one, other in zip(setting.frames, plain.frames, strict=True)
        ]
        rows.append(
            [
                setting.name,
                _ratio(setting.denoise_s, plain.denoise_s),
                _ratio(setting.decode_s, plain.decode_s),
                f"{setting.num_computed / plain.num_computed:.0%}"
                if setting.num_computed
                else "not counted",
                "" if setting is plain else f"{fmean(psnr_dB):.1f} dB",
                "" if setting is plain else f"{min(psnr_dB):.1f} dB",
                f"{share(followed(tasks, setting.verdicts)):.1%}",
                f"{share([verdict.is_clean for verdict in setting.verdicts]):.1%}",
            ]
        )
    return [f"| {' | '.join(row)} |" for row in rows]


def _ratio(some_s: list[float], plain_s: list[float]) -> str:
    return f"{median(one / plain for one, plain in zip(some_s, plain_s, strict=True)):.2f}"


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(((one.astype(np.float32) - other) ** 2).mean())
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Measure the first block cache, compiled blocks and VAE tiles."
    )
    parser.add_argument(
        "models", nargs="*", default=MODEL_NAMES, metavar="MODEL", help=", ".join(MODEL_NAMES)
    )
    parser.add_argument(
        "--clips", type=int, default=12, help="clips per model and setting (default: 12)"
    )
    parser.add_argument("--steps", type=int, default=25, help="denoise steps (default: 25)")
    arguments = parser.parse_args()
    for name in arguments.models:
        path = model_paths()[name]
        config = load_model_config(path)
        lines = measure(config, inspect_model(config, path), arguments.clips, arguments.steps)
        print(
            "\n".join(
                ["", f"**{name}**, {arguments.steps} steps, {arguments.clips} clips", "", *lines]
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
