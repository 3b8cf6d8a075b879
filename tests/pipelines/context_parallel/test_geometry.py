"""The geometry read from a folder is the one of the real classes that are built from it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.catalog.model_config import ModelConfig, SamplingDefaults, ShapeGrid
from pipelines.catalog.model_yaml import load_model_config
from pipelines.context_parallel.geometry import ModelGeometry, read_geometry
from pipelines.errors import ModelFolderError
from pipelines.request import VideoShape
from tests.builders import tiny

Configs = dict[str, dict[str, Any]]
SHAPE = VideoShape(17, 64, 96)


def config_of(family: Any) -> ModelConfig:
    sampling = SamplingDefaults(2, 1.0, 17, 64, 64, 8.0)
    return ModelConfig(
        "mine", family, "./mine", ShapeGrid(4, 32, 32), sampling, max_sequence_length=48
    )


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes those configs of a model's folder that a geometry needs."""

    def save_configs(transformer: object, vae: object, second: object = None) -> Path:
        components = {"transformer": transformer, "vae": vae} | (
            {"transformer_2": second} if second else {}
        )
        for name, config in components.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "config.json").write_text(json.dumps(config))
        index = {
            "transformer_2": ["diffusers", "WanTransformer3DModel"] if second else [None, None]
        }
        (tmp_path / "model_index.json").write_text(json.dumps(index))
        return tmp_path

    return save_configs


def on_meta(cls: Any, config: dict[str, Any]) -> Any:
    """Build the real class from a folder's config, without memory."""
    with torch.device("meta"):
        return cls.from_config(config)


def measured_wan(
    transformer_config: dict[str, Any], vae_config: dict[str, Any]
) -> tuple[ModelGeometry, int]:
    """Return the geometry of the built classes, and the tokens that they make of `SHAPE`."""
    transformer, vae = (
        on_meta(WanTransformer3DModel, transformer_config),
        on_meta(AutoencoderKLWan, vae_config),
    )
    # As WanPipeline does.
    temporal, spatial = (
        vae.config.scale_factor_temporal,
        vae.config.scale_factor_spatial,
    )
    block = transformer.blocks[0]
    num_frames = (SHAPE.num_frames - 1) // temporal + 1
    latents = torch.empty(
        1,
        transformer.config.in_channels,
        num_frames,
        SHAPE.height // spatial,
        SHAPE.width // spatial,
        device="meta",
    )
    geometry = ModelGeometry(
        family="wan",
        num_layers=len(transformer.blocks),
        num_heads=block.attn1.heads,
        head_dim=block.attn1.to_q.out_features // block.attn1.heads,
        ffn_dim=block.ffn.net[0].proj.out_features,
        num_text_tokens=48,
        frames_per_token=temporal,
        height_per_token=spatial * transformer.patch_embedding.kernel_size[1],
        width_per_token=spatial * transformer.patch_embedding.kernel_size[2],
    )
    return geometry, transformer.patch_embedding(latents).flatten(2).shape[2]


def measured_ltx(
    transformer_config: dict[str, Any], vae_config: dict[str, Any]
) -> tuple[ModelGeometry, int]:
    transformer, vae = (
        on_meta(LTXVideoTransformer3DModel, transformer_config),
        on_meta(AutoencoderKLLTXVideo, vae_config),
    )
    # As LTXPipeline does.
    temporal, spatial = (
        vae.temporal_compression_ratio,
        vae.spatial_compression_ratio,
    )
    patch, patch_t = transformer.config.patch_size, transformer.config.patch_size_t
    block = transformer.transformer_blocks[0]
    num_frames = (SHAPE.num_frames - 1) // temporal + 1
    latents = torch.empty(
        1, 8, num_frames, SHAPE.height // spatial, SHAPE.width // spatial, device="meta"
    )
    geometry = ModelGeometry(
        family="ltx",
        num_layers=len(transformer.transformer_blocks),
        num_heads=block.attn1.heads,
        head_dim=block.attn1.to_q.out_features // block.attn1.heads,
        ffn_dim=block.ff.net[0].proj.out_features,
        num_text_tokens=48,
        frames_per_token=temporal * patch_t,
        height_per_token=spatial * patch,
        width_per_token=spatial * patch,
    )
    return geometry, LTXPipeline._pack_latents(latents, patch, patch_t).shape[1]


def saved_config(model: Any) -> dict[str, Any]:
    return json.loads(model.to_json_string())


def shipped(model: str, component: str) -> dict[str, Any]:
    return json.loads((PACKAGED_WEIGHTS / model / component / "config.json").read_text())


WAN_22_5B_VAE = {
    "scale_factor_spatial": 16,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "is_residual": True,
    "z_dim": 48,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
CASES: dict[str, Callable[[], tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "tiny wan": lambda: ("wan", saved_config(tiny.wan_transformer()), saved_config(tiny.wan_vae())),
    "shapes-wan": lambda: (
        "wan",
        shipped("shapes-wan", "transformer"),
        shipped("shapes-wan", "vae"),
    ),
    "wan that says nothing": lambda: ("wan", {}, {}),
    "wan 2.2 5b's autoencoder": lambda: (
        "wan",
        {"num_layers": 1, "num_attention_heads": 24},
        WAN_22_5B_VAE,
    ),
    "tiny ltx": lambda: (
        "ltx",
        saved_config(tiny.ltx_pipeline().transformer),
        saved_config(tiny.ltx_pipeline().vae),
    ),
    "shapes-ltx": lambda: (
        "ltx",
        shipped("shapes-ltx", "transformer"),
        shipped("shapes-ltx", "vae"),
    ),
    "ltx that says nothing": lambda: ("ltx", {}, {}),
    "ltx that says its ratios": lambda: (
        "ltx",
        {"num_layers": 1, "patch_size": 2},
        {"spatial_compression_ratio": 16, "temporal_compression_ratio": 4},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_geometry_is_the_one_of_the_built_classes(case: str, save: Callable[..., Path]) -> None:
    family, transformer, vae = CASES[case]()
    measured, num_tokens = (measured_wan if family == "wan" else measured_ltx)(transformer, vae)
    found = read_geometry(save(transformer, vae), config_of(family))
    assert found == measured
    assert found.num_tokens(SHAPE) == num_tokens


@pytest.mark.parametrize(
    ("model", "family", "per_token"),
    [("shapes-wan", "wan", (4, 16)), ("shapes-ltx", "ltx", (4, 16))],
)
def test_a_shipped_models_geometry_is_read_from_its_folder(
    model: str, family: str, per_token: tuple[int, int]
) -> None:
    config = load_model_config(model_paths()[model])
    found = read_geometry(PACKAGED_WEIGHTS / model, config)
    assert (found.family, found.num_heads, found.head_dim, found.ffn_dim) == (family, 4, 32, 512)
    assert (found.frames_per_token, found.height_per_token, found.width_per_token) == (
        *per_token,
        per_token[1],
    )
    assert (found.num_text_tokens, found.num_transformers) == (config.max_sequence_length, 1)


def test_the_layers_of_a_control_video_are_layers(save: Callable[..., Path]) -> None:
    transformer = tiny.wan_vace_pipeline().transformer
    found = read_geometry(save(saved_config(transformer), {}), config_of("wan"))
    assert found.num_layers == len(transformer.blocks) + len(transformer.vace_blocks) == 3
    assert found.num_control_layers == 1
    with_references = replace(found, num_references=2)
    frame = found.num_tokens(replace(SHAPE, num_frames=1))
    assert with_references.num_tokens(SHAPE) == found.num_tokens(SHAPE) + 2 * frame


def test_two_transformers_are_counted_and_must_be_alike(save: Callable[..., Path]) -> None:
    assert read_geometry(save({}, {}, {"ffn_dim": 13824}), config_of("wan")).num_transformers == 2
    with pytest.raises(ModelFolderError, match="transformer and transformer_2 must be of one size"):
        read_geometry(save({}, {}, {"num_layers": 41}), config_of("wan"))


HOSTILE: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "wan",
        {"num_layers": "40"},
        {},
        "num_layers must be a whole number from 1 to 1,048,576, not '40'",
    ),
    ("wan", {"num_layers": True}, {}, "num_layers must be a whole number"),
    ("wan", {"num_attention_heads": 0}, {}, "num_attention_heads must be a whole number"),
    ("wan", {"num_attention_heads": -40}, {}, "num_attention_heads must be a whole number"),
    ("wan", {"attention_head_dim": 1.5}, {}, "attention_head_dim must be a whole number"),
    ("wan", {"ffn_dim": None}, {}, "ffn_dim must be a whole number"),
    (
        "wan",
        {"ffn_dim": 10**1000},
        {},
        r"ffn_dim must be a whole number from 1 to 1,048,576, not 1000\d*\.\.\.$",
    ),
    ("wan", {"patch_size": 2}, {}, "patch_size must be a list, not 2"),
    ("wan", {"patch_size": [1, 2]}, {}, "patch_size must be a list of 3 whole numbers"),
    ("wan", {"patch_size": [1, 2, [2]]}, {}, r"patch_size must be a whole number .*, not \[2\]"),
    (
        "wan",
        {"patch_size": [2, 2, 2]},
        {},
        "patch_size must be 1 in time to shard a clip, not 2",
    ),
    ("wan", {}, {"scale_factor_spatial": None}, "scale_factor_spatial must be a whole number"),
    ("wan", {}, {"scale_factor_temporal": {}}, "scale_factor_temporal must be a whole number"),
    ("ltx", {"patch_size_t": 2}, {}, "patch_size_t must be 1 in time"),
    ("ltx", {"num_layers": []}, {}, "num_layers must be a whole number"),
    (
        "ltx",
        {},
        {"spatio_temporal_scaling": "yes"},
        "spatio_temporal_scaling must be a list, not 'yes'",
    ),
    (
        "ltx",
        {},
        {"spatio_temporal_scaling": [1, 2]},
        "spatio_temporal_scaling must be a list of at most 16 yes/no values",
    ),
    (
        "ltx",
        {},
        {"spatio_temporal_scaling": [True] * 99},
        "spatio_temporal_scaling must be a list of at most 16",
    ),
    (
        "ltx",
        {},
        {"spatial_compression_ratio": 0},
        "spatial_compression_ratio must be a whole number",
    ),
    (
        "ltx",
        {},
        {"temporal_compression_ratio": "8"},
        "temporal_compression_ratio must be a whole number",
    ),
    ("ltx", {}, {"patch_size": -4}, "patch_size must be a whole number"),
]


@pytest.mark.parametrize(("family", "transformer", "vae", "message"), HOSTILE)
def test_an_invalid_config_is_refused_with_its_file(
    family: str, transformer: Any, vae: Any, message: str, save: Callable[..., Path]
) -> None:
    folder = save(transformer, vae)
    with pytest.raises(
        ModelFolderError, match=rf"^{folder}/(transformer|vae)/config\.json: {message}"
    ) as caught:
        read_geometry(folder, config_of(family))
    assert len(str(caught.value)) < 500 + len(str(folder))


@pytest.mark.parametrize("name", ["transformer/config.json", "vae/config.json", "model_index.json"])
def test_a_missing_config_is_refused(name: str, save: Callable[..., Path]) -> None:
    folder = save({}, {})
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=rf"{name} is missing"):
        read_geometry(folder, config_of("wan"))
