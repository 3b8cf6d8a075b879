"""Count the work and traffic of one rank in the real classes, to check the cost model.

Builds the real diffusers class at full size on torch's meta device, which computes shapes and no
numbers, in a process group whose other ranks do not exist: each collective is recorded and not
carried out. So a rank of eight of a 14B model is counted in seconds, without memory and without a
GPU.
"""

import warnings
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.testing._internal.distributed.fake_pg import FakeProcessGroup, FakeStore
from torch.utils.flop_counter import FlopCounterMode

import nag
from benchmarks.parallel_cost.counting import CollectiveCounter
from benchmarks.real_sizes import IMAGE_CHANNELS, TEXT_CHANNELS, build_pipeline
from nag.params import NagParams
from pipelines.context_parallel.sharding import ShardedPipeline
from pipelines.cost.operations import Forward
from pipelines.parallel_config import ParallelConfig

_META = torch.device("meta")
_FAKE_GROUP: Any = FakeProcessGroup  # the stubs of torch lack its constructor


@dataclass(frozen=True)
class Counted:
    """The counts of one forward on rank 0.

    Args:
        operations: operations of all matrix products and convolutions; `layer_operations` counts
            those in the layers.
        num_calls: calls of each kind of collective; `sent_bytes` are the bytes that left the rank
            by them.
    """

    operations: int
    layer_operations: int
    num_calls: dict[str, int]
    sent_bytes: dict[str, int]


def count_forward(forward: Forward, parallel: ParallelConfig) -> Counted:
    """Run one forward of the real class with the geometry and rows of `forward`.

    The process must not be in a process group yet.
    """
    pipeline = build_pipeline(forward.geometry, _META)
    with (
        _missing_peers(pipeline, parallel),
        _guidance(pipeline, forward),
        warnings.catch_warnings(),
        torch.no_grad(),
        FlopCounterMode(display=False) as operations,
        CollectiveCounter() as collectives,
    ):
        # diffusers 0.42 calls a function that torch 2.13 renamed
        warnings.filterwarnings("ignore", ".*all_gather_tensor.* is deprecated", FutureWarning)
        pipeline.transformer(**_arguments(forward), return_dict=False)
    by_module = operations.get_flop_counts()
    root, num_control = type(pipeline.transformer).__name__, forward.geometry.num_control_layers
    blocks = "blocks" if forward.geometry.family == "wan" else "transformer_blocks"
    layers = [f"{blocks}.{layer}" for layer in range(forward.geometry.num_layers - num_control)]
    layers += [f"vace_blocks.{layer}" for layer in range(num_control)]
    return Counted(
        operations.get_total_flops(),
        sum(sum(by_module[f"{root}.{layer}"].values()) for layer in layers),
        collectives.num_calls,
        collectives.sent_bytes,
    )


def _arguments(forward: Forward) -> Mapping[str, torch.Tensor | int]:
    geometry, shape, rows = forward.geometry, forward.shape, forward.num_rows
    frames = (shape.num_frames - 1) // geometry.frames_per_token + 1 + geometry.num_references
    height, width = (
        shape.height // geometry.height_per_token,
        shape.width // geometry.width_per_token,
    )
    text = _empty(rows, geometry.num_text_tokens, TEXT_CHANNELS)
    timestep = _empty(rows)
    if geometry.family == "wan":
        latents = _empty(rows, 16, frames, 2 * height, 2 * width)
        arguments = {"hidden_states": latents, "timestep": timestep, "encoder_hidden_states": text}
        if geometry.num_control_layers:
            arguments["control_hidden_states"] = _empty(rows, 96, frames, 2 * height, 2 * width)
        if num_images := geometry.num_image_tokens:
            arguments["encoder_hidden_states_image"] = _empty(rows, num_images, IMAGE_CHANNELS)
        return arguments
    return {
        "hidden_states": _empty(rows, frames * height * width, 128),
        "encoder_hidden_states": text,
        "timestep": timestep,
        "encoder_attention_mask": _empty(rows, geometry.num_text_tokens),
        "num_frames": frames,
        "height": height,
        "width": width,
    }


def _empty(*sizes: int) -> torch.Tensor:
    return torch.empty(sizes, dtype=torch.bfloat16, device=_META)


@contextmanager
def _guidance(pipeline: Any, forward: Forward) -> Generator[None]:
    """Return NAG in all rows, or in the second of two, as `LTXPipeline` calls under guidance."""
    pipeline._guidance_scale = forward.num_rows
    mask = None if forward.geometry.family == "wan" else _empty(1, forward.geometry.num_text_tokens)
    with nag.install(pipeline) as installed:
        negative = nag.NegativeText(
            _empty(1, forward.geometry.num_text_tokens, TEXT_CHANNELS), mask
        )
        guided: AbstractContextManager[None] = (
            installed.guide(negative, NagParams(nag_scale=5))
            if forward.num_guided_rows
            else nullcontext()
        )
        with (
            guided,
            pipeline.progress_bar(total=1),  # inside it, calls count as the pipeline's own
            pipeline.transformer.cache_context("cond" if forward.num_rows == 1 else "cond_uncond"),
        ):
            yield


@contextmanager
def _missing_peers(pipeline: Any, parallel: ParallelConfig) -> Generator[None]:
    """Make this process rank 0 of a group whose other ranks do not exist."""
    if parallel.degree == 1:
        yield
        return
    options = _FAKE_GROUP.Options()  # it has a time-out, like real groups
    distributed.init_process_group(
        "fake", store=FakeStore(), rank=0, world_size=parallel.degree, pg_options=options
    )
    try:
        split = ShardedPipeline(pipeline, parallel, torch.device("cpu"))
        try:
            yield
        finally:
            split.remove()
    finally:
        distributed.destroy_process_group()
