"""Folders of Wan with random weights of a chosen size, and the YAML with which the farm loads them.

Their clips are noise, so the frame checks are off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from transformers import (
    T5TokenizerFast,  # pyright: ignore[reportAttributeAccessIssue]
    UMT5Config,
    UMT5EncoderModel,
)

from benchmarks.real_sizes import TEXT_CHANNELS, build_pipeline, default_dtype
from pipelines.context_parallel.geometry import ModelGeometry

LETTERS = "abcdefghijklmnopqrstuvwxyz ,"
SPECIAL = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0}
SMALL_TEXT = {"d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
SMALL_VAE = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


@dataclass(frozen=True)
class WanSizes:
    """The sizes of a folder's parts.

    Args:
        text: sizes of the UMT5 text encoder, as `UMT5Config` names them.
        vae: sizes of the autoencoder, as `AutoencoderKLWan` names them; Wan 2.1's if empty.
    """

    geometry: ModelGeometry
    text: Mapping[str, int] = field(default_factory=lambda: SMALL_TEXT)
    vae: Mapping[str, Any] = field(default_factory=lambda: SMALL_VAE)


def write_wan_model(
    models: Path, name: str, sizes: WanSizes, device: torch.device, dtype: torch.dtype
) -> None:
    """Write the weights of a model unless they are there.

    Args:
        models: gets the folder NAME; `write_wan_yaml` writes YAMLs beside it.
        device: the weights are made on it.
    """
    if (models / name / "model_index.json").exists():  # written last
        return
    pipeline = build_pipeline(sizes.geometry, device, dtype)
    vocabulary = [*SPECIAL.items(), *((letter, -3.0) for letter in LETTERS)]
    pipeline.register_modules(tokenizer=T5TokenizerFast(vocab=vocabulary, extra_ids=0))
    text_sizes: dict[str, Any] = dict(sizes.text)
    text = UMT5Config(
        vocab_size=len(vocabulary), d_model=TEXT_CHANNELS, dropout_rate=0.0, **text_sizes
    )
    with device, torch.random.fork_rng([]):
        torch.manual_seed(1)
        with default_dtype(dtype):
            pipeline.register_modules(text_encoder=UMT5EncoderModel(text))
        pipeline.register_modules(vae=AutoencoderKLWan(**sizes.vae))
    pipeline.save_pretrained(models / name)


def write_wan_yaml(
    models: Path, name: str, source: str, sizes: WanSizes, dtypes: tuple[str, str]
) -> None:
    """Write the YAML of a model.

    Args:
        source: folder of its weights below `models`.
        dtypes: dtype of the transformer and text encoder, and dtype of the autoencoder.
    """
    one = sizes.geometry
    grid = f"num_frames: {one.frames_per_token}, height: {one.height_per_token}"
    dtype, vae_dtype = dtypes
    (models / f"{name}.yaml").write_text(
        f"""\
description: random weights of a chosen size
family: wan
source: ./{source}
dtype: {dtype}
vae_dtype: {vae_dtype}
device: auto
max_sequence_length: {one.num_text_tokens}
grid: {{{grid}, width: {one.width_per_token}}}
scheduler: {{name: UniPCMultistepScheduler, flow_shift: 3.0}}
sampling: {{num_inference_steps: 4, guidance_scale: 1.0, num_frames: 17,
  height: {4 * one.height_per_token}, width: {4 * one.width_per_token}, fps: 16}}
method: nag
nag: {{nag_scale: 9.0, nag_tau: 2.5, nag_alpha: 0.25}}
frame_checks: {{spread: null, black: null, flat: null, frozen: null, grain: null,
  flicker: null, saturation: null}}
""",
        encoding="utf-8",
    )
