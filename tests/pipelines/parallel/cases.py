"""What is rendered on one process and on several, and held against each other.

Models are tiny real ones with four heads; each is built once in a process and shared out again and again.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

import nag
from nag import GuidanceParams, NagParams, NasaParams, NegativeText, VsfParams
from pipelines.parallel.config import ParallelConfig
from pipelines.parallel.split import SplitPipeline
from tests import tiny
from tests.nag.reference import image, render, text

NUM_HEADS = 4
CPU = torch.device("cpu")
METHODS: dict[str, GuidanceParams | None] = {
    "none": None,
    "nag": NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.5),
    "vsf": VsfParams(1.7, 0.2),
    "nasa": NasaParams(0.8),
}


def _wan_with_a_timestep_per_token() -> Any:
    pipeline = tiny.wan_pipeline(num_heads=NUM_HEADS)
    pipeline.register_to_config(expand_timesteps=True)
    return pipeline


MAKERS: dict[str, Callable[[], Any]] = {
    "wan2.1": lambda: tiny.wan_pipeline(num_heads=NUM_HEADS),
    "wan2.2": lambda: tiny.wan_pipeline(two_transformers=True, num_heads=NUM_HEADS),
    "wan2.2-5b": _wan_with_a_timestep_per_token,
    "wan2.1-i2v": lambda: tiny.wan_image_to_video_pipeline(num_heads=NUM_HEADS),
    "ltx": lambda: tiny.ltx_pipeline(num_heads=NUM_HEADS),
}


@dataclass(frozen=True)
class Case:
    """One call of a pipeline: which model, guided how, how many clips at once."""

    model: str
    method: str = "none"
    has_cfg: bool = False
    batch_size: int = 1
    dtype: str = "float32"


@cache
def pipeline_of(model: str, dtype: str) -> Any:
    pipeline = MAKERS[model]()
    if dtype != "float32":  # as weights are loaded: some of Wan's modules stay in float32
        for name in ("transformer", "transformer_2"):
            part = getattr(pipeline, name, None)
            if part is not None:
                with TemporaryDirectory() as folder:
                    part.save_pretrained(folder)
                    half = type(part).from_pretrained(folder, torch_dtype=getattr(torch, dtype))
                    setattr(pipeline, name, half.eval())
    return pipeline


@torch.no_grad()
def render_case(case: Case) -> np.ndarray:
    """Latents of two steps, as one process or as one rank."""
    pipeline = pipeline_of(case.model, case.dtype)
    is_ltx, is_image_to_video = case.model == "ltx", case.model == "wan2.1-i2v"
    length = 512 if is_image_to_video else 12  # diffusers' processor takes a text beside an image to be 512 tokens long
    dtype = getattr(torch, case.dtype)
    prompt, negative, unconditional = (
        text(case.batch_size, size, seed).to(dtype) for seed, size in ((1, length), (2, 7), (3, length))
    )
    arguments: dict[str, Any] = {"num_frames": 9}
    negative_mask = None
    if is_ltx:
        arguments["prompt_attention_mask"] = _padded(case.batch_size, length)
        negative_mask = _padded(case.batch_size, 7)
    if is_image_to_video:
        arguments["image"] = image()
    if case.has_cfg:
        arguments |= {"guidance_scale": 3.0, "negative_prompt_embeds": unconditional}
        if is_ltx:
            arguments["negative_prompt_attention_mask"] = _padded(case.batch_size, length).flip(0)
    params = METHODS[case.method]
    with nag.install(pipeline) if params else nullcontext() as installed:
        guidance = installed.guide(NegativeText(negative, negative_mask), params) if installed else nullcontext()
        with guidance:
            return render(pipeline, prompt, **arguments).float().numpy()


def _padded(batch_size: int, length: int) -> torch.Tensor:
    """Each row with another number of padded tokens at its end, (B, L)."""
    num_tokens = torch.tensor([[length - 3 - 2 * row] for row in range(batch_size)])
    return torch.arange(length)[None] < num_tokens


def render_split(cases: list[Case], parallel: ParallelConfig) -> list[np.ndarray]:
    """The same cases on a rank; those of one model and dtype are rendered by a pipeline that is split once."""
    rendered: list[np.ndarray] = []
    for case in cases:
        split = SplitPipeline(pipeline_of(case.model, case.dtype), parallel, CPU)
        try:
            rendered.append(render_case(case))
        finally:
            split.remove()
    return rendered
