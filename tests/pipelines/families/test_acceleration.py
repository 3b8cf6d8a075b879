"""The first block cache, compiled blocks and the autoencoder, on tiny classes."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import nn
from torch._dynamo import config as dynamo_config
from torch._dynamo.utils import counters

import nag
from nag.params import NagParams
from pipelines.attention.block_cache import enable_block_cache, repeated_blocks
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.errors import ModelConfigError
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from tests.builders import tiny
from tests.builders.accelerated import CFG_AND_NAG, METHODS, NAG, THRESHOLD, denoise, tiny_model
from tests.builders.operators import counted_operators


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Computed:
    """Counts of computations of each transformer's first and last block, by their attention."""

    def __init__(self, pipeline: Any) -> None:
        self.first = self.last = 0
        for transformer in (pipeline.transformer, getattr(pipeline, "transformer_2", None)):
            if transformer is not None:
                blocks: list[Any] = [*repeated_blocks(transformer)]
                blocks[0].attn1.register_forward_hook(self._count_first)
                blocks[-1].attn1.register_forward_hook(self._count_last)

    def _count_first(self, *_: Any) -> None:
        self.first += 1

    def _count_last(self, *_: Any) -> None:
        self.last += 1


def by_hand(name: str, request: GenerationRequest, *, is_cached: bool = True) -> torch.Tensor:
    """Return the latents of a stock pipeline with the cache of diffusers' documentation."""
    stock = tiny.PIPELINES[name]()
    for transformer in (stock.transformer, getattr(stock, "transformer_2", None)):
        if transformer is not None and is_cached:
            transformer.enable_cache(FirstBlockCacheConfig(threshold=THRESHOLD))
    params = request.attention_params
    with nag.guide(stock, "red", params, max_sequence_length=16) if params else nullcontext():
        return stock(
            request.prompt,
            request.unconditional_prompt,
            height=32,
            width=32,
            num_frames=9,
            num_inference_steps=8,
            guidance_scale=request.sampling.guidance_scale,
            max_sequence_length=16,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
            **({"frame_rate": 8.0} if name == "ltx" else {}),
        ).frames


# the first block cache


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_a_cached_clip_skips_blocks_and_equals_the_stock_pipeline_with_diffusers_cache(
    name: str, method: str
) -> None:
    model = tiny_model(name, first_block_cache=THRESHOLD)
    computed = Computed(model.pipeline)
    latents = denoise(model, METHODS[method])
    assert computed.first == 8 * (2 if method.startswith("cfg") and name != "ltx" else 1)
    assert computed.first / 4 < computed.last < computed.first
    assert torch.equal(latents, by_hand(name, METHODS[method]))
    assert not torch.equal(latents, by_hand(name, METHODS[method], is_cached=False))


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_a_threshold_below_every_change_makes_the_same_clip_as_without_a_cache(name: str) -> None:
    model = tiny_model(name, first_block_cache=1e-9)
    assert torch.equal(denoise(model, CFG_AND_NAG), by_hand(name, CFG_AND_NAG, is_cached=False))


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_a_cached_clip_is_the_same_alone_and_after_any_other(name: str) -> None:
    model = tiny_model(name, first_block_cache=THRESHOLD)
    alone = [denoise(model, request) for request in METHODS.values()]
    wider = replace(NAG, shape=VideoShape(17, 32, 64))
    denoise(model, wider)
    again = [denoise(model, request) for request in reversed(METHODS.values())]
    assert all(torch.equal(one, other) for one, other in zip(alone, reversed(again), strict=True))


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_a_cached_clip_is_the_same_after_one_that_failed_half_way(name: str) -> None:
    """Diffusers empties the cache only at the end of a clip that does not fail."""

    def fail(step: int) -> None:
        if step == 4:
            raise RuntimeError("half way")

    model = tiny_model(name, first_block_cache=THRESHOLD)
    alone = denoise(model, NAG)
    with pytest.raises(RuntimeError, match="half way"):
        denoise(model, replace(NAG, prompt="a square"), fail)
    assert torch.equal(denoise(model, NAG), alone)


@pytest.mark.parametrize("is_nag_first", [True, False])
@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_nag_and_the_cache_go_on_and_come_off_in_any_order(name: str, is_nag_first: bool) -> None:
    pipeline = tiny.PIPELINES[name]()
    transformers = [
        part for part in (pipeline.transformer, getattr(pipeline, "transformer_2", None)) if part
    ]
    with nag.install(pipeline) if is_nag_first else nullcontext():
        for transformer in transformers:
            enable_block_cache(transformer, THRESHOLD)
        model = tiny_model(name, pipeline) if not is_nag_first else None
    # The first NAG was put on before the cache and taken off after it.
    model = model or tiny_model(name, pipeline)
    assert torch.equal(denoise(model, NAG), by_hand(name, NAG))
    for transformer in transformers:
        transformer.disable_cache()  # before NAG is
    assert torch.equal(denoise(model, NAG), by_hand(name, NAG, is_cached=False))


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_the_cache_hides_no_nan(name: str) -> None:
    model = tiny_model(name, first_block_cache=THRESHOLD)
    embeddings = model.encode_text(NAG)
    spoilt = replace(embeddings, prompt_embeds=embeddings.prompt_embeds * torch.nan)
    assert model.denoise(NAG, spoilt, lambda _step: None).isnan().all()


def test_a_transformer_of_one_block_cannot_be_cached() -> None:
    pipeline = tiny.wan_pipeline()
    pipeline.transformer.blocks = pipeline.transformer.blocks[:1]
    with pytest.raises(ModelConfigError, match="two blocks or more"):
        tiny_model("wan2.1", pipeline, first_block_cache=THRESHOLD)


# compiled blocks


@pytest.fixture
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize(
    ("name", "backend"),
    [pytest.param("wan2.1", "inductor", marks=pytest.mark.slow), ("ltx", "aot_eager")],
)
def test_compiled_blocks_make_the_same_clip_with_cache_and_nag_after_any_other_clip(
    name: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kernels are generated for one of the two models only, which takes 5 s and more."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    request = replace(NAG, sampling=replace(NAG.sampling, num_inference_steps=4))
    wider = replace(request, shape=VideoShape(9, 32, 64))
    cached: dict[str, Any] = {"first_block_cache": 0.2}
    eager, compiled = tiny_model(name, **cached), tiny_model(name, compile=True, **cached)
    computed = Computed(eager.pipeline)
    truths = [denoise(eager, one) for one in (request, wider)]
    assert computed.last < computed.first
    # A farm renders more sizes than torch's limits allow; here the limit is 1.
    with dynamo_config.patch(recompile_limit=1, accumulated_recompile_limit=1):
        alone, after = denoise(compiled, request), denoise(compiled, wider)
    assert counters["stats"]["unique_graphs"] == 2  # one a size, which both blocks share
    with dynamo_config.patch(error_on_recompile=True):
        assert torch.equal(denoise(compiled, request), alone)
        stronger = denoise(
            compiled, replace(request, prompt="a square", nag=NagParams(nag_scale=5))
        )
    assert not torch.equal(stronger, alone)
    for found, truth in zip((alone, after), truths, strict=True):
        assert (found - truth).abs().max() <= 1e-4 * truth.abs().max()


@pytest.mark.usefixtures("_fresh_dynamo")
def test_each_graph_is_for_one_size_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default torch's second graph is for any size: a clip would depend on those before it."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    model = tiny_model("wan2.1", compile=True)
    for width in (32, 64, 96):
        sampling = replace(NAG.sampling, num_inference_steps=1)
        denoise(model, replace(NAG, shape=VideoShape(1, 32, width), sampling=sampling))
    assert counters["stats"]["unique_graphs"] == 3


@pytest.mark.usefixtures("_fresh_dynamo")
def test_exact_attention_compiles_nothing_and_closing_leaves_nothing_compiled() -> None:
    model = tiny_model("wan2.1", compile=True)
    blocks = repeated_blocks(model.pipeline.transformer)
    with model.exact_attention(), counted_operators() as counts:
        safe = denoise(model, NAG)
    kernels = {name for name in counts if "::_scaled_dot_product_" in name}
    assert kernels == {"aten::_scaled_dot_product_attention_math"}
    assert not counters["stats"]["unique_graphs"]
    assert torch.equal(safe, _safely(tiny_model("wan2.1")))
    model.close()
    assert not any("forward" in vars(block) for block in blocks)


def _safely(model: DiffusersModel) -> torch.Tensor:
    with model.exact_attention():
        return denoise(model, NAG)


# tiles


VAES = {"wan2.1": tiny.wan_vae, "wan2.2": tiny.wan_vae, "ltx": tiny.ltx_vae}


def decoding_model(name: str, **asked: Any) -> DiffusersModel:
    """Build a model with an autoencoder of its own and settings for it."""
    pipeline = tiny.PIPELINES[name]()
    pipeline.vae = VAES[name]()
    return tiny_model(name, pipeline, **asked)


def tiled_model(name: str) -> DiffusersModel:
    return decoding_model(name, vae_tiling=True)


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_tiles_are_switched_on_by_the_yaml_and_off_when_the_model_is_closed(name: str) -> None:
    model = tiled_model(name)
    vae = model.pipeline.vae
    sizes = {key: value for key, value in vars(vae).items() if key.startswith("tile_sample_")}
    assert vae.use_tiling
    assert sizes == {
        key: value for key, value in vars(VAES[name]()).items() if key.startswith("tile_sample_")
    }
    model.close()
    assert not vae.use_tiling
    assert not tiny_model(name).pipeline.vae.use_tiling


def test_tiles_that_diffusers_would_put_together_wrongly_are_refused() -> None:
    pipeline = tiny.ltx_pipeline()
    pipeline.vae = tiny.ltx_vae()
    pipeline.vae.tile_sample_stride_width = 450
    with pytest.raises(
        ModelConfigError, match="tiles 4k pixels apart for this autoencoder, and they are 450 apart"
    ):
        tiny_model("ltx", pipeline, vae_tiling=True)


@pytest.mark.parametrize("name", tiny.PIPELINES)
def test_a_frame_no_larger_than_a_tile_is_decoded_as_without_tiles(name: str) -> None:
    plain, tiled = tiny_model(name), tiled_model(name)
    latents = denoise(plain, NAG)
    one, other = (model.decode(NAG, latents).result().frames for model in (plain, tiled))
    assert (one == other).all()


@pytest.mark.models
@pytest.mark.parametrize(("name", "least_dB"), [("shapes-wan", 30), ("shapes-ltx", 25)])
def test_a_clip_decoded_in_tiles_is_close_to_one_decoded_whole(name: str, least_dB: float) -> None:
    """Trained autoencoders; tiles smaller than diffusers' own, so that clips exceed them."""
    path = model_paths()[name]
    config = load_model_config(path)
    model = load_model(config, inspect_model(config, path), num_threads=1)
    assert isinstance(model, DiffusersModel)
    vae = model.pipeline.vae
    sampling = SamplingParams(4, 3.0, config.scheduler.flow_shift, seed=1)
    whole = replace(
        CFG_AND_NAG, prompt="a red circle", shape=VideoShape(17, 64, 64), sampling=sampling
    )
    latents = denoise(model, whole)
    frames = model.decode(whole, latents).result().frames
    num_latents: list[int] = []
    vae.decoder.register_forward_pre_hook(
        lambda _module, args: num_latents.append(args[0].shape[-1])
    )
    vae.enable_tiling(48, 48, tile_sample_stride_height=32, tile_sample_stride_width=32)
    tiled = model.decode(whole, latents).result().frames
    assert max(num_latents) * vae.spatial_compression_ratio == 48
    error = float(((frames.astype(np.float32) - tiled) ** 2).mean())
    assert error > 0
    assert 10 * np.log10(255**2 / error) >= least_dB


# the memory format of the autoencoder, and its compiled decoder


@pytest.mark.parametrize("name", ["wan2.1", "ltx"])
def test_channels_last_is_set_on_each_convolution_and_taken_off_at_the_end(name: str) -> None:
    plain, changed = tiny_model(name), decoding_model(name, vae_memory_format="channels_last_3d")
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    weights = [
        one.weight
        for one in changed.pipeline.vae.modules()
        if isinstance(one, nn.Conv2d | nn.Conv3d)
    ]
    assert weights
    assert all(one.is_contiguous(memory_format=formats[one.dim()]) for one in weights)
    latents = denoise(plain, NAG)
    frames = plain.decode(NAG, latents).result().frames.astype(int)
    assert abs(changed.decode(NAG, latents).result().frames - frames).max() <= 1
    changed.close()
    assert all(one.is_contiguous() for one in weights)


@pytest.mark.usefixtures("_fresh_dynamo")
@pytest.mark.parametrize("name", [pytest.param("wan2.1", marks=pytest.mark.slow), "ltx"])
def test_a_compiled_decoder_makes_the_same_clip_and_each_graph_is_for_one_size(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wan decodes the first two latent frames and the others by a graph each."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    plain, compiled = tiny_model(name), decoding_model(name, vae_compile=True)
    wider = replace(NAG, shape=VideoShape(9, 32, 64))
    clips = [(one, denoise(plain, one)) for one in (NAG, wider)]
    with dynamo_config.patch(recompile_limit=1, accumulated_recompile_limit=1):
        for request, latents in clips:
            frames = plain.decode(request, latents).result().frames
            assert (compiled.decode(request, latents).result().frames == frames).all()
    num_graphs = counters["stats"]["unique_graphs"]
    assert num_graphs == (6 if name == "wan2.1" else 2)
    with dynamo_config.patch(error_on_recompile=True):
        compiled.decode(*clips[0])
    longer = replace(NAG, shape=VideoShape(17, 32, 32))
    with compiled.exact_attention():
        compiled.decode(longer, denoise(plain, longer))
    assert counters["stats"]["unique_graphs"] == num_graphs
    compiled.close()
    assert "forward" not in vars(compiled._acceleration._vae.decoder)
