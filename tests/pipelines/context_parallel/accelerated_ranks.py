"""The work of a rank with an accelerated model. It notes the decisions of the first block cache."""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks.first_block_cache import FBCHeadBlockHook
from torch import distributed

from pipelines.attention.block_cache import _CommonDecision, _whole_means
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.parallel_config import ParallelConfig
from tests.builders.accelerated import METHODS, NAG, THRESHOLD, denoise, tiny_model


@dataclass(frozen=True, eq=False)
class Denoised:
    """Latents, and one bool a step: True if the remaining blocks were computed."""

    latents: np.ndarray
    decisions: tuple[bool, ...]


def denoise_cached(
    name: str, methods: list[str], parallel: ParallelConfig | None
) -> list[Denoised]:
    """Denoise with one model, one method after the other. None stands for one device."""
    return _denoise(tiny_model(name, first_block_cache=THRESHOLD), methods, parallel)


def denoise_compiled(
    name: str, methods: list[str], parallel: ParallelConfig | None
) -> list[Denoised]:
    """Denoise with a model that stays in the process from one group to the next."""
    with warnings.catch_warnings():  # torch warns about its own tracing of diffusers
        warnings.filterwarnings(
            "ignore", ".*(should not be instantiated|torch.jit.script_method. is deprecated)"
        )
        return _denoise(_compiled(name), methods, parallel)


def denoise_alone(name: str, threshold: float) -> Denoised:
    """Denoise on one device, at another threshold."""
    return _denoise(tiny_model(name, first_block_cache=threshold), ["nag"], None)[0]


@cache
def _compiled(name: str) -> DiffusersModel:
    with pytest.MonkeyPatch.context() as patch:
        # Without kernels, which take long to generate.
        patch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
        return tiny_model(name, compile=True, first_block_cache=THRESHOLD)


def _denoise(
    family: DiffusersModel, methods: list[str], parallel: ParallelConfig | None
) -> list[Denoised]:
    if parallel:
        family.shard(parallel)
    rendered: list[Denoised] = []
    for method in methods:
        with _noted() as decisions:
            latents = denoise(family, METHODS[method])
        rendered.append(Denoised(latents.numpy(), tuple(decisions)))
    family.unshard()
    return rendered


@contextmanager
def _noted(decide: Callable[[Any, torch.Tensor], bool] | None = None) -> Generator[list[bool]]:
    """Note the common decisions of the ranks, or those of `decide`."""
    decisions: list[bool] = []
    hook_class: Any = _CommonDecision  # its types are lost in torch.compiler.disable
    stock = hook_class._should_compute_remaining_blocks

    def note(hook: Any, residual: torch.Tensor) -> bool:
        decisions.append((decide or stock)(hook, residual))
        return stock(hook, residual)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_CommonDecision, "_should_compute_remaining_blocks", note)
        yield decisions


@dataclass(frozen=True, eq=False)
class Contested:
    """A clip at a threshold where the ranks' own parts would decide differently at some step."""

    threshold: float
    alone: tuple[bool, ...]  # the decisions of this rank's part
    together: Denoised


def denoise_contested(name: str, parallel: ParallelConfig) -> Contested:
    """Find a threshold at which ranks would decide differently, and denoise at it."""
    changes: list[float] = []

    def note_change(hook: Any, residual: torch.Tensor) -> bool:
        previous = hook.state_manager.get_state().head_block_residual
        if previous is not None:
            changes.append(float((residual - previous).abs().mean() / previous.abs().mean()))
        return True

    family = tiny_model(name, first_block_cache=1e-6)
    family.shard(parallel)
    with _noted(note_change):
        denoise(family, NAG)
    of_ranks: list[Any] = [None] * parallel.degree
    distributed.all_gather_object(of_ranks, changes)
    least, most = np.min(of_ranks, axis=0), np.max(of_ranks, axis=0)
    step = int((most / least).argmax())
    threshold = float((least[step] + most[step]) / 2)
    family.unshard()

    family = tiny_model(name, first_block_cache=threshold)
    family.shard(parallel)
    stock: Any = FBCHeadBlockHook
    with _noted(stock._should_compute_remaining_blocks) as of_this_part:
        denoise(family, NAG)
    with _noted() as decisions:
        latents = denoise(family, NAG)
    family.unshard()
    return Contested(threshold, tuple(of_this_part), Denoised(latents.numpy(), tuple(decisions)))


def means_of_parts(dtype: str, sizes: list[int]) -> tuple[float, float]:
    """Return the means of two tensors that are spread over the ranks in these sizes."""
    one, other = whole_tensors(dtype, sum(sizes))
    rank = distributed.get_rank()
    part = slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))
    first, second = _whole_means(one[part], other[part])
    return first.item(), second.item()


def whole_tensors(dtype: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    one, other = (
        torch.randn(size, 7, generator=generator).to(getattr(torch, dtype)) for _ in range(2)
    )
    return one, other * 3
