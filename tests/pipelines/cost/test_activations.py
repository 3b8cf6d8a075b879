"""The activations of a clip against the real classes, run on tensors without data.

The layers are as wide as published ones where width decides, and as few as show the peak.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTX2VideoTransformer3DModel,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
    WanVACETransformer3DModel,
)
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.real_sizes import default_dtype
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.cost.activations import Autoencoder, Clip, activations, forward_bytes
from pipelines.parallel_config import ParallelConfig
from pipelines.request import VideoShape
from tests.builders.live_bytes import LiveBytes

SHAPE = VideoShape(33, 480, 832)
WAN_TOKENS, LTX_TOKENS, AUDIO_TOKENS = 9 * 30 * 52, 5 * 15 * 26, 34
SIZES: dict[str, Any] = {"num_attention_heads": 8, "attention_head_dim": 64, "num_layers": 1}
VACE_SIZES: dict[str, Any] = {**SIZES, "num_layers": 5}
LTX: dict[str, Any] = {**SIZES, "cross_attention_dim": 512}
LTX2: dict[str, Any] = {**LTX, "audio_num_attention_heads": 4, "audio_cross_attention_dim": 256}
COMPRESSION = {"spatial_compression_ratio": 32, "temporal_compression_ratio": 8}
LTX_VAE: dict[str, Any] = {
    **COMPRESSION,
    "decoder_block_out_channels": (256, 512, 1024),
    "decoder_layers_per_block": (1, 1, 1, 2),  # the last has the largest maps
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (False,) * 4,
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2, 2, 2),
}
LTX2_VAE: dict[str, Any] = {**COMPRESSION, "decoder_layers_per_block": (1, 1, 1, 2)}
WAN_5B_VAE: dict[str, Any] = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12,
    "out_channels": 12, "patch_size": 2, "scale_factor_spatial": 16,
}  # fmt: skip


def config_of(family: Any, **changes: Any) -> ModelConfig:
    sampling = SamplingDefaults(4, 1.0, 81, 480, 832, 16.0)
    config = ModelConfig("mine", family, "./weights", ShapeGrid(4, 16, 16), sampling)
    return replace(config, **{"vae_dtype": "bfloat16", **changes})


def filled(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.bfloat16)


def write(folder: Path, index: dict[str, Any], transformer: Any, vae: dict[str, Any]) -> Path:
    """Write the configs that the estimate reads."""
    transformer.save_config(folder / "transformer")
    (folder / "vae").mkdir()
    (folder / "vae" / "config.json").write_text(json.dumps(vae))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def wan_call(num_timesteps: int) -> dict[str, Any]:
    return {
        "hidden_states": filled(1, 16, 9, 60, 104),
        "timestep": torch.ones((1, num_timesteps) if num_timesteps > 1 else 1),
        "encoder_hidden_states": filled(1, 512, 4096),
    }


def ltx_call(num_timesteps: int) -> dict[str, Any]:
    return {
        "hidden_states": filled(1, LTX_TOKENS, 128),
        "encoder_hidden_states": filled(1, 128, 4096),
        "encoder_attention_mask": filled(1, 128),
        "timestep": torch.ones(1, num_timesteps),
        **dict(zip(("num_frames", "height", "width"), (5, 15, 26), strict=True)),
    }


def ltx2_call(num_timesteps: int) -> dict[str, Any]:
    return {
        **ltx_call(num_timesteps),
        "encoder_hidden_states": filled(1, 128, 3840),
        "audio_encoder_hidden_states": filled(1, 128, 3840),
        "audio_encoder_attention_mask": filled(1, 128),
        "audio_hidden_states": filled(1, AUDIO_TOKENS, 128),
        "audio_timestep": torch.ones(1),
        "audio_num_frames": AUDIO_TOKENS,
    }


def vace_call() -> dict[str, Any]:
    return {**wan_call(1), "control_hidden_states": filled(1, 96, 9, 60, 104)}


FORWARDS: dict[str, tuple[Any, Callable[[], Any], Callable[[], Any], dict[str, Any]]] = {
    "wan, residual sum": (
        config_of("wan"),
        lambda: WanTransformer3DModel(**SIZES, ffn_dim=1024),
        lambda: wan_call(1),
        {},
    ),
    "wan, feed-forward": (
        config_of("wan"),
        lambda: WanTransformer3DModel(**SIZES, ffn_dim=3072),
        lambda: wan_call(1),
        {},
    ),
    "wan, timestep for each token": (
        config_of("wan"),
        lambda: WanTransformer3DModel(**SIZES, ffn_dim=2048),
        lambda: wan_call(WAN_TOKENS),
        {"expand_timesteps": True},
    ),
    "VACE": (
        config_of("wan", pipeline="WanVACEPipeline"),
        lambda: WanVACETransformer3DModel(
            **VACE_SIZES, ffn_dim=1024, vace_layers=[*range(5)]
        ),
        vace_call,
        {},
    ),
    "ltx": (
        config_of("ltx"), lambda: LTXVideoTransformer3DModel(**LTX), lambda: ltx_call(1), {}
    ),
    "ltx, with images": (
        config_of("ltx", pipeline="LTXConditionPipeline"),
        lambda: LTXVideoTransformer3DModel(**LTX),
        lambda: ltx_call(LTX_TOKENS),
        {},
    ),
    "ltx2": (
        config_of("ltx2"), lambda: LTX2VideoTransformer3DModel(**LTX2), lambda: ltx2_call(1), {}
    ),
    "ltx2, with an image": (
        config_of("ltx2", pipeline="LTX2ImageToVideoPipeline"),
        lambda: LTX2VideoTransformer3DModel(**LTX2),
        lambda: ltx2_call(LTX_TOKENS),
        {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORWARDS)
def test_a_forward_is_that_of_a_real_block(name: str, tmp_path: Path) -> None:
    config, build, call, index = FORWARDS[name]
    config = replace(config, max_sequence_length=512 if config.family == "wan" else 128)
    with FakeTensorMode(), default_dtype(torch.bfloat16), torch.no_grad():
        model, arguments = build(), call()
        with LiveBytes(model) as live:
            model(**arguments, return_dict=False)
    vae = {} if config.family == "wan" else COMPRESSION
    counted = forward_bytes(write(tmp_path, index, model, vae), config, Clip(SHAPE, "none"))
    assert counted == pytest.approx(live.peak, rel=0.07)


def test_guidance_rows_and_groups_change_the_count(tmp_path: Path) -> None:
    with FakeTensorMode():
        model = LTXVideoTransformer3DModel(**LTX)
    folder, config = write(tmp_path, {}, model, COMPRESSION), config_of("ltx")
    plain = activations(folder, config, Clip(SHAPE, "nag"))["denoise"]
    assert activations(folder, config, Clip(SHAPE, "cfg+nag"))["denoise"] == 2 * plain
    shared = Clip(SHAPE, "nag", ParallelConfig(ulysses=2))
    assert activations(folder, config, shared)["denoise"] == plain // 2


DECODES: dict[str, tuple[Any, Callable[[], Any], dict[str, Any], tuple[int, ...]]] = {
    "wan": (config_of("wan"), AutoencoderKLWan, {}, (16, 3, 60, 104)),
    "wan, tiled": (config_of("wan", vae_tiling=True), AutoencoderKLWan, {}, (16, 2, 40, 40)),
    "wan 5B": (
        config_of("wan"), lambda: AutoencoderKLWan(**WAN_5B_VAE), WAN_5B_VAE, (48, 3, 44, 80)
    ),
    "ltx": (config_of("ltx"), lambda: AutoencoderKLLTXVideo(**LTX_VAE), LTX_VAE, (128, 5, 16, 24)),
    "ltx, tiled": (
        config_of("ltx", vae_tiling=True),
        lambda: AutoencoderKLLTXVideo(**LTX_VAE),
        LTX_VAE,
        (128, 5, 16, 24),
    ),
    "ltx2": (
        config_of("ltx2"), lambda: AutoencoderKLLTX2Video(**LTX2_VAE), LTX2_VAE, (128, 5, 16, 24)
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [pytest.param(one, marks=pytest.mark.slow) if "tiled" in one else one for one in DECODES],
)
def test_a_decode_is_that_of_the_real_autoencoder(name: str, tmp_path: Path) -> None:
    config, build, values, latents = DECODES[name]
    with FakeTensorMode(), default_dtype(torch.bfloat16), torch.no_grad():
        vae = build()
        if config.vae_tiling:
            vae.enable_tiling()
        with LiveBytes(vae) as live:
            (video,) = vae.decode(filled(1, *latents), return_dict=False)
    shape = VideoShape(*video.shape[2:])
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps(values))
    counted = Autoencoder.of(tmp_path, config).decode_bytes(shape)
    assert counted == pytest.approx(live.peak, rel=0.07)


def test_an_image_is_encoded_as_a_video_by_wan(tmp_path: Path) -> None:
    config = config_of("wan", pipeline="WanImageToVideoPipeline")
    with FakeTensorMode(), default_dtype(torch.bfloat16), torch.no_grad():
        vae = AutoencoderKLWan()
        with LiveBytes(vae) as live:
            vae.encode(filled(1, 3, 9, 480, 832))
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    encoder = Autoencoder.of(tmp_path, config)
    assert encoder.encode_bytes(VideoShape(9, 480, 832)) == pytest.approx(live.peak, rel=0.07)
    assert replace(encoder, config=config_of("wan")).encode_bytes(SHAPE) == 0
