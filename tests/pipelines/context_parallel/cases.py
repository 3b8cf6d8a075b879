"""Renders on one process and on several, for comparison.

Models are tiny real ones with four heads. Each process builds each model once and shards it again
and again.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel
from diffusers.models.attention_dispatch import attention_backend
from torch import distributed

import nag
from benchmarks.parallel_cost.counting import CollectiveCounter
from nag import GuidanceParams, NagParams, NasaParams, NegativeText, VsfParams
from pipelines.attention.exact_attention import exact_attention
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.context_parallel.plans import LTX_PLAN
from pipelines.context_parallel.sharding import ShardedPipeline
from pipelines.errors import ShardingError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.lora_choice import LoraChoice
from pipelines.parallel_config import ParallelConfig
from pipelines.request import (
    CFG_METHODS,
    GenerationRequest,
    GuidanceMethod,
    SamplingParams,
    VideoShape,
)
from tests.builders import tiny, tiny_wan
from tests.builders.operators import counted_operators
from tests.nag.reference import image, render, text

NUM_HEADS = 4
# with the two heads of `tiny_wan`, for groups of two ranks
WITH_INPUTS = ("wan2.2-i2v", "wan2.2-5b-i2v", "wan2.1-v2v", "wan2.1-vace")
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
    **{name: tiny_wan.STOCK[name] for name in WITH_INPUTS},
}


@dataclass(frozen=True)
class Case:
    """One call of a pipeline: the model, the guidance and the number of clips at once."""

    model: str
    method: str = "none"
    has_cfg: bool = False
    batch_size: int = 1
    dtype: str = "float32"
    size_px: int = 64


@cache
def pipeline_of(model: str, dtype: str) -> Any:
    pipeline = MAKERS[model]()
    if dtype != "float32":  # as for loaded weights, some of Wan's modules stay in float32
        for name in ("transformer", "transformer_2"):
            part = getattr(pipeline, name, None)
            if part is not None:
                with TemporaryDirectory() as folder:
                    part.save_pretrained(folder)
                    half = type(part).from_pretrained(folder, torch_dtype=getattr(torch, dtype))
                    setattr(pipeline, name, half.eval())
    return pipeline


@torch.no_grad()
def render_case(
    case: Case, installed: nag.InstalledGuidance | None = None, **more: Any
) -> np.ndarray:
    """Return the latents of two steps, as one process or as one rank."""
    pipeline = pipeline_of(case.model, case.dtype)
    is_ltx = case.model == "ltx"
    # Diffusers' processor takes a text beside an image to be 512 tokens long.
    length = 512 if case.model == "wan2.1-i2v" else 12
    dtype = getattr(torch, case.dtype)
    prompt, negative, unconditional = (
        text(case.batch_size, size, seed).to(dtype)
        for seed, size in ((1, length), (2, 7), (3, length))
    )
    arguments: dict[str, Any] = {"num_frames": 9, "height": case.size_px, "width": case.size_px}
    negative_mask = None
    if is_ltx:
        arguments["prompt_attention_mask"] = _padded(case.batch_size, length)
        negative_mask = _padded(case.batch_size, 7)
    if case.model.endswith("i2v"):
        arguments["image"] = image()
    elif case.model == "wan2.1-v2v":
        arguments |= {"num_frames": None, "video": _movie(case.size_px)}
        arguments |= {"strength": 0.7, "num_inference_steps": 3}
    elif case.model == "wan2.1-vace":
        arguments |= {"video": _movie(case.size_px), "reference_images": [image(99)]}
        arguments["generator"] = torch.Generator().manual_seed(0)
        arguments["mask"] = [frame.convert("L").convert("RGB") for frame in _movie(case.size_px)]
    if case.has_cfg:
        arguments |= {"guidance_scale": 3.0, "negative_prompt_embeds": unconditional}
        if is_ltx:
            arguments["negative_prompt_attention_mask"] = _padded(case.batch_size, length).flip(0)
    params = METHODS[case.method]
    with ExitStack() as stack:
        if params:
            guide = (installed or stack.enter_context(nag.install(pipeline))).guide
            stack.enter_context(guide(NegativeText(negative, negative_mask), params))
        return render(pipeline, prompt, **arguments, **more).float().numpy()


def _movie(size_px: int, num_frames: int = 9) -> list[Any]:
    return [image(seed).resize((size_px, size_px)) for seed in range(num_frames)]


def _padded(batch_size: int, length: int) -> torch.Tensor:
    """Return a mask (B, L) whose rows end in different numbers of padded tokens."""
    num_tokens = torch.tensor([[length - 3 - 2 * row] for row in range(batch_size)])
    return torch.arange(length)[None] < num_tokens


def render_sharded(cases: list[Case], parallel: ParallelConfig) -> list[np.ndarray]:
    """Render cases on a rank; each pipeline is sharded for its case and unsharded after it."""
    rendered: list[np.ndarray] = []
    for case in cases:
        sharded = ShardedPipeline(pipeline_of(case.model, case.dtype), parallel, CPU)
        try:
            rendered.append(render_case(case))
        finally:
            sharded.remove()
    return rendered


def render_sharded_with_nag_installed_before(
    case: Case, parallel: ParallelConfig
) -> list[np.ndarray]:
    """Render sharded with NAG, then unsharded with NAG still on, then sharded without NAG."""
    pipeline = pipeline_of(case.model, case.dtype)
    with nag.install(pipeline) as installed:
        sharded = ShardedPipeline(pipeline, parallel, CPU)
        guided = render_case(case, installed)
        sharded.remove()
        alone = render_case(case, installed)
        sharded = ShardedPipeline(pipeline, parallel, CPU)
    unguided = render_case(Case(case.model))
    sharded.remove()
    return [guided, alone, unguided]


def render_alone_after_sharding(
    case: Case, parallel: ParallelConfig
) -> tuple[np.ndarray, list[str]]:
    """Render unsharded after a sharded render, and list the settings left on the model."""
    pipeline = pipeline_of(case.model, case.dtype)
    sharded = ShardedPipeline(pipeline, parallel, CPU)
    render_case(case)
    sharded.remove()
    sharded.remove()
    distributed.destroy_process_group()
    left = [
        name
        for name, module in pipeline.transformer.named_modules()
        if getattr(getattr(module, "processor", None), "_parallel_config", None) is not None
        or getattr(getattr(module, "processor", None), "_attention_backend", None) is not None
        or any(
            hook.startswith("cp_")
            for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", ())
        )
    ]
    return render_case(case), left + ["model"] * (pipeline.transformer._parallel_config is not None)


def render_exactly(case: Case, parallel: ParallelConfig) -> tuple[np.ndarray, int]:
    """Render with exact attention, and count the uses of a fused kernel."""
    sharded = ShardedPipeline(pipeline_of(case.model, case.dtype), parallel, CPU)
    try:
        with (
            counted_operators() as counts,
            exact_attention(max_scores_bytes=100_000),
        ):
            rendered = render_case(case)
    finally:
        sharded.remove()
    assert counts
    fused = sum(count for name, count in counts.items() if "flash_attention" in name)
    return rendered, fused


@dataclass(frozen=True)
class Exchanged:
    """The data that one rank exchanged in one forward."""

    num_calls: dict[str, int]
    sent_bytes: dict[str, int]


@torch.no_grad()
def count(model: str, method: str, parallel: ParallelConfig) -> Exchanged:
    sharded = ShardedPipeline(pipeline_of(model, "float32"), parallel, CPU)
    try:
        with CollectiveCounter() as counter:
            render_case(Case(model, method), num_inference_steps=1)
    finally:
        sharded.remove()
    return Exchanged(counter.num_calls, counter.sent_bytes)


@torch.no_grad()
def count_ltx_without_a_mask(parallel: ParallelConfig, is_stock: bool) -> Exchanged:
    """Count the exchanges of one forward without a mask, by this plan or by diffusers' plan."""
    pipeline = pipeline_of("ltx", "float32")
    transformer = pipeline.transformer
    sharded = ShardedPipeline(pipeline, parallel, CPU)
    settings, plan = transformer._parallel_config, dict(transformer._cp_plan)
    attentions = [
        module
        for name, module in transformer.named_modules()
        if name.endswith((".attn1", ".attn2"))
    ]
    if is_stock:
        backends = [attention.processor._attention_backend for attention in attentions]
        remove_context_parallel(transformer, LTX_PLAN)
        apply_context_parallel(transformer, settings.context_parallel_config, plan)
        for attention in attentions:  # as `enable_parallelism` does
            attention.processor._parallel_config = settings
            attention.processor._attention_backend = next(filter(None, backends), None)
    try:
        with CollectiveCounter() as counter:
            transformer(
                hidden_states=torch.randn(1, 48, 8, generator=torch.Generator().manual_seed(0)),
                encoder_hidden_states=text(1, 12, 1),
                timestep=torch.tensor([500.0]),
                encoder_attention_mask=None,
                num_frames=3,
                height=4,
                width=4,
                return_dict=False,
            )
    finally:
        if is_stock:
            remove_context_parallel(transformer, plan)
            for attention in attentions:
                attention.processor._parallel_config = attention.processor._attention_backend = None
        sharded.remove()
    return Exchanged(counter.num_calls, counter.sent_bytes)


def fail_on_the_last_rank(parallel: ParallelConfig) -> float:
    """Return the seconds that the other ranks take to notice. The pipeline stays sharded."""
    pipeline = pipeline_of("wan2.1", "float32")
    sharded = ShardedPipeline(pipeline, parallel, CPU)
    begin = monotonic()
    is_last = distributed.get_rank() == parallel.degree - 1
    try:
        if not is_last:
            render_case(Case("wan2.1"))
    except RuntimeError:  # from gloo: the connection was closed
        pass
    else:
        assert is_last
    distributed.destroy_process_group()
    sharded.remove()
    return monotonic() - begin


def timeouts(parallel: ParallelConfig) -> list[timedelta]:
    """Return the time-out of each process group that a sharded pipeline uses."""
    pipeline = pipeline_of("wan2.1", "float32")
    sharded = ShardedPipeline(pipeline, parallel, CPU)
    settings = pipeline.transformer._parallel_config.context_parallel_config
    meshes = (settings._flattened_mesh, settings._ring_mesh, settings._ulysses_mesh)
    found = [mesh.get_group()._get_backend(CPU).options._timeout for mesh in meshes]
    # A rank that leaves before another has connected to it fails that one.
    distributed.all_reduce(torch.zeros(1))
    sharded.remove()
    return found


def refusals(model: str, parallel: ParallelConfig) -> list[str]:
    """Return the errors for a wrong size, unfit heads, a second sharding and an unfit backend."""
    pipeline = pipeline_of(model, "float32")
    told: list[str] = []
    with pytest.raises(ShardingError) as refused:
        ShardedPipeline(pipeline, ParallelConfig(8), CPU)
    told.append(str(refused.value))
    transformer = pipeline.transformer
    num_heads = transformer.config.num_attention_heads
    transformer.register_to_config(num_attention_heads=3)
    with pytest.raises(ShardingError) as refused:
        ShardedPipeline(pipeline, parallel, CPU)
    transformer.register_to_config(num_attention_heads=num_heads)
    told.append(str(refused.value))
    sharded = ShardedPipeline(pipeline, parallel, CPU)
    with pytest.raises(ShardingError) as refused:
        ShardedPipeline(pipeline, parallel, CPU)
    told.append(str(refused.value))
    sharded.remove()
    with attention_backend("flex"), pytest.raises(ShardingError) as refused:
        ShardedPipeline(pipeline, parallel, CPU)
    return [*told, str(refused.value)]


@cache
def shapes_model(name: str) -> DiffusersModel:
    path = model_paths()[name]
    config = load_model_config(path)
    family = load_model(config, inspect_model(config, path), num_threads=1)
    assert isinstance(family, DiffusersModel)
    return family


def render_shapes(
    name: str,
    method: GuidanceMethod,
    parallel: ParallelConfig | None,
    num_steps: int = 3,
    loras: tuple[LoraChoice, ...] | None = None,
) -> np.ndarray:
    """Return the latents of a Shapes model that is loaded by its family."""
    family = shapes_model(name)
    guidance_scale = 3.0 if method in CFG_METHODS else 1.0
    request = GenerationRequest(
        "a red circle moving right",
        "blue",
        VideoShape(17, 64, 64),
        8.0,
        SamplingParams(num_steps, guidance_scale, flow_shift=None, seed=5),
        family.config.nag,
        method,
        VsfParams(1.7, 0.2),
        NasaParams(0.8),
        loras,
    )
    embeddings = family.encode_text(request)
    if parallel:
        family.shard(parallel)
    try:
        return family.denoise(request, embeddings, lambda _step: None).numpy()
    finally:
        family.unshard()
