"""Seconds and memory of a denoise step, without guidance, with NAG and with CFG.

The variants take turns in one process, so that a card that slows down slows all of them. Each call
of the pipeline drops its first step, which warms caches and compiles.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import torch

import nag
from benchmarks.real_sizes import TEXT_CHANNELS, build_pipeline
from nag.params import NagParams
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.cost.operations import forwards_of_step, operations
from pipelines.request import VideoShape

Variant = Literal["none", "nag", "cfg"]
ROUNDS = 3
PARAMS = NagParams(nag_scale=9, nag_tau=2.5, nag_alpha=0.25)


@dataclass(frozen=True)
class Case:
    """One model and shape, eager or with compiled blocks.

    Args:
        num_steps: steps of each call of the pipeline, of which the first is dropped.
    """

    name: str
    geometry: ModelGeometry
    shape: VideoShape
    variants: tuple[Variant, ...]
    is_compiled: bool = False
    num_steps: int = 4


@dataclass
class StepTimes:
    """The measurements of one variant.

    Args:
        steps_s: seconds of each step.
        peak_bytes: most memory that tensors held on the device; 0 on a CPU.
    """

    steps_s: list[float] = field(default_factory=list[float])
    peak_bytes: int = 0

    @property
    def median_s(self) -> float:
        return statistics.median(self.steps_s)


def measure(
    case: Case, device: torch.device, dtype: torch.dtype, say: Callable[[str], None]
) -> dict[Variant, StepTimes]:
    """Measure the variants of a case in turn."""
    pipeline = build_pipeline(case.geometry, device, dtype)
    if case.is_compiled:
        pipeline.transformer.compile_repeated_blocks(fullgraph=True)
    times: dict[Variant, StepTimes] = {variant: StepTimes() for variant in case.variants}
    for turn in range(ROUNDS):
        for variant, found in times.items():
            _run(pipeline, case, variant, found)
            say(f"{case.name}: {variant}, turn {turn + 1} of {ROUNDS}, {found.median_s:.4f} s")
    return times


@dataclass(frozen=True)
class Speed:
    """The best speeds of a device.

    Args:
        operations_per_s: floating-point operations of a large matrix product in a second.
        bytes_per_s: bytes that a copy of a large tensor reads and writes in a second.
    """

    operations_per_s: float
    bytes_per_s: float

    @classmethod
    def measure(cls, device: torch.device, dtype: torch.dtype, size: int) -> Self:
        """Multiply and copy square matrices with `size` rows."""
        one, other, result = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(3))
        product_s = _median_s(device, lambda: torch.mm(one, other, out=result))
        copy_s = _median_s(device, lambda: result.copy_(one))
        return cls(2 * size**3 / product_s, 2 * one.nbytes / copy_s)


def floor(case: Case, times: dict[Variant, StepTimes], speed: Speed) -> float:
    """Return the ratio of NAG to none if the work that NAG adds ran at the device's best speed.

    That is the second attention, the negative prompt's keys and values, and the formula, which
    reads two attention outputs and writes one. An eager step of a short clip may be faster: its
    text's keys and values are kept from the step before.
    """
    plain, guided = step_operations(case), step_operations(case, "nag")
    tokens, width = case.geometry.num_tokens(case.shape), case.geometry.width
    moved_bytes = 3 * case.geometry.num_layers * tokens * width * 2
    added_s = (guided - plain) / speed.operations_per_s + moved_bytes / speed.bytes_per_s
    return 1 + added_s / times["none"].median_s


def step_operations(case: Case, variant: Variant = "none") -> int:
    """Return the floating-point operations of one step, as counted."""
    forwards = forwards_of_step(case.geometry, case.shape, variant)
    return sum(operations(forward).total for forward in forwards)


def _median_s(device: torch.device, action: Callable[[], object]) -> float:
    found: list[float] = []
    for _ in range(12):
        _wait(device)
        begin = time.perf_counter()
        action()
        _wait(device)
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def _run(pipeline: Any, case: Case, variant: Variant, found: StepTimes) -> None:
    device = pipeline.transformer.device
    ends: list[float] = []

    def on_step_end(_pipeline: Any, _step: int, _timestep: Any, kwargs: Any) -> Any:
        _wait(device)
        ends.append(time.perf_counter())
        return kwargs

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    prompt, negative = (_embeddings(pipeline, case, seed) for seed in range(2))
    guided: AbstractContextManager[Any] = (
        nag.guide(pipeline, negative, PARAMS) if variant == "nag" else nullcontext()
    )
    with guided, torch.no_grad():
        pipeline.set_progress_bar_config(disable=True)
        pipeline(
            **_arguments(case, prompt, negative if variant == "cfg" else None),
            height=case.shape.height,
            width=case.shape.width,
            num_frames=case.shape.num_frames,
            num_inference_steps=case.num_steps,
            guidance_scale=5.0 if variant == "cfg" else 1.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
            callback_on_step_end=on_step_end,
        )
    found.steps_s += [end - begin for begin, end in pairwise(ends)]
    if device.type == "cuda":
        found.peak_bytes = max(found.peak_bytes, torch.cuda.max_memory_allocated(device))


def _embeddings(pipeline: Any, case: Case, seed: int) -> nag.NegativeText:
    generator = torch.Generator().manual_seed(seed)
    shape = (1, case.geometry.num_text_tokens, TEXT_CHANNELS)
    transformer = pipeline.transformer
    embeds = torch.randn(shape, generator=generator).to(transformer.device, transformer.dtype)
    if case.geometry.family == "wan":
        return nag.NegativeText(embeds)
    return nag.NegativeText(embeds, torch.ones(shape[:2], device=transformer.device))


def _arguments(
    case: Case, prompt: nag.NegativeText, negative: nag.NegativeText | None
) -> dict[str, Any]:
    arguments: dict[str, Any] = {"prompt_embeds": prompt.embeds}
    if negative is not None:
        arguments["negative_prompt_embeds"] = negative.embeds
    if case.geometry.family == "ltx":
        arguments["prompt_attention_mask"] = prompt.attention_mask
        if negative is not None:
            arguments["negative_prompt_attention_mask"] = negative.attention_mask
    return arguments


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
