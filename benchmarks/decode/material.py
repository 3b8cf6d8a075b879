"""The models and latents that the benchmark of decoding measures: each model twice.

The Shapes models decode what they have denoised. Autoencoders of the published sizes have random
weights and decode noise.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import AutoencoderKLLTXVideo, AutoencoderKLWan

from benchmarks.real_sizes import build_pipeline
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_folder import inspect_model
from pipelines.catalog.model_yaml import load_model_config
from pipelines.cost.published import LTX_2B, WAN_1_3B
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.registry import driver_of, load_model
from pipelines.request import GenerationRequest, SamplingParams, VideoShape
from pipelines.shapes.measuring.rendering import make_tasks

SHAPES_TILE_PX, SHAPES_STRIDE_PX = 48, 32  # diffusers' own tiles are larger than these clips
REAL_SIZES = {"wan": VideoShape(49, 480, 832), "ltx": VideoShape(121, 512, 768)}
LATENTS = {"wan": (16, 4, 8), "ltx": (128, 8, 32)}  # channels, frames and pixels of one latent
TINY_SHAPE = VideoShape(9, 64, 64)
SEED = 113


@dataclass(frozen=True)
class Material:
    """One model without and with a setting, and the latents that both decode."""

    plain: DiffusersModel
    changed: DiffusersModel
    clips: list[tuple[GenerationRequest, torch.Tensor]]


def shapes_material(name: str, fields: dict[str, Any], num_clips: int) -> Material:
    """Load a Shapes model twice, and denoise clips with it."""
    path = model_paths()[name]
    config = replace(load_model_config(path), device="cpu")
    weights = inspect_model(config, path)
    plain, changed = (
        load_model(replace(config, **changes), weights, num_threads=1) for changes in ({}, fields)
    )
    assert isinstance(plain, DiffusersModel)
    assert isinstance(changed, DiffusersModel)
    if fields.get("vae_tiling"):
        strides = {f"tile_sample_stride_{side}": SHAPES_STRIDE_PX for side in ("height", "width")}
        changed.pipeline.vae.enable_tiling(SHAPES_TILE_PX, SHAPES_TILE_PX, **strides)
    sampling = config.sampling
    clips: list[tuple[GenerationRequest, torch.Tensor]] = []
    for task in make_tasks(num_clips, SEED):
        request = GenerationRequest(
            task.prompt,
            "",
            VideoShape(sampling.num_frames, sampling.height, sampling.width),
            sampling.fps,
            SamplingParams(4, 1.0, config.scheduler.flow_shift, task.seed),
            config.nag,
            "none",
        )
        latents = plain.denoise(request, plain.encode_text(request), lambda _step: None)
        clips.append((request, latents))
    return Material(plain, changed, clips)


def real_material(
    family: str, fields: dict[str, Any], num_clips: int, device: torch.device, is_tiny: bool
) -> Material:
    """Build an autoencoder of published size twice with the same random weights."""
    shape = TINY_SHAPE if is_tiny else REAL_SIZES[family]
    config = ModelConfig(
        name=family,
        family="wan" if family == "wan" else "ltx",
        source="package:random",
        grid=ShapeGrid(1, 1, 1),
        sampling=SamplingDefaults(1, 1.0, shape.num_frames, shape.height, shape.width, 16.0),
    )
    plain, changed = (
        _random_model(replace(config, **changes), device, is_tiny) for changes in ({}, fields)
    )
    channels, per_latent, ratio = LATENTS[family]
    frames = (shape.num_frames - 1) // per_latent + 1
    sizes = (channels, frames, shape.height // ratio, shape.width // ratio)
    clips: list[tuple[GenerationRequest, torch.Tensor]] = []
    for seed in range(num_clips):
        sampling = SamplingParams(1, 1.0, None, seed)
        request = GenerationRequest("noise", "", shape, 16.0, sampling, config.nag, "none")
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn((1, *sizes), generator=generator)
        if family == "ltx":
            latents = latents.flatten(2).transpose(1, 2)  # packed, as LTX's transformer leaves them
        clips.append((request, latents.to(device)))
    return Material(plain, changed, clips)


def _random_model(config: ModelConfig, device: torch.device, is_tiny: bool) -> DiffusersModel:
    geometry = replace(
        WAN_1_3B if config.family == "wan" else LTX_2B,
        num_layers=1, num_heads=2, head_dim=12, ffn_dim=32,
    )  # fmt: skip
    pipeline = build_pipeline(geometry, device)
    with device, torch.random.fork_rng([]):
        torch.manual_seed(1)
        vae: Any = _wan_vae(is_tiny) if config.family == "wan" else _ltx_vae(is_tiny)
    vae.eval().requires_grad_(requires_grad=False)
    torch.nn.Module.to(vae, getattr(torch, config.vae_dtype))
    pipeline = type(pipeline)(**pipeline.components | {"vae": vae})
    return driver_of(config.pipeline_class)(config, pipeline, device)


def _wan_vae(is_tiny: bool) -> AutoencoderKLWan:
    sizes: dict[str, Any] = {"base_dim": 8, "num_res_blocks": 1} if is_tiny else {}
    return AutoencoderKLWan(**sizes)


def _ltx_vae(is_tiny: bool) -> AutoencoderKLLTXVideo:
    """Return the autoencoder of LTX-Video 0.9.5, whose decoder also finishes the denoising."""
    widths = (4, 8, 16, 32, 64) if is_tiny else (128, 256, 512, 1024, 2048)
    depths = (1, 1, 1, 1) if is_tiny else (5, 5, 5, 5)
    return AutoencoderKLLTXVideo(
        latent_channels=128,
        block_out_channels=widths,
        down_block_types=("LTXVideo095DownBlock3D",) * 4,
        decoder_block_out_channels=widths[1:4],
        layers_per_block=(*depths[:4], depths[0]),
        decoder_layers_per_block=depths,
        spatio_temporal_scaling=(True,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3,
        timestep_conditioning=True,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
