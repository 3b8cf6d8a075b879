"""The image-to-video model of the Wan family: shapes-wan with a first image among its inputs.

It has the layout of Wan 2.2's image-to-video models, without an image encoder: mask and latents of
the first image are further input channels. Their weights begin at zero, so the training begins with
the text-to-video model. Autoencoder, tokenizer and text encoder are those of shapes-wan.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanTransformer3DModel,
)

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.latents import encode_clips
from pipelines.shapes.training import wan
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.wan import LATENT_SHAPE, training_latents, velocity

__all__ = ["LATENT_SHAPE", "encode_clips", "training_latents", "velocity"]

BASE = "shapes-wan"
CONDITION_CHANNELS = 4 + LATENT_SHAPE[0]  # mask of the four frames of a cell, and latents


def train_autoencoder(_running: Running) -> AutoencoderKLWan:
    """Return the packaged autoencoder of the text-to-video model."""
    return AutoencoderKLWan.from_pretrained(
        PACKAGED_WEIGHTS / BASE, subfolder="vae", use_safetensors=True
    )


def build_transformer(_seed: int) -> WanTransformer3DModel:
    return widen(
        WanTransformer3DModel.from_pretrained(
            PACKAGED_WEIGHTS / BASE, subfolder="transformer", use_safetensors=True
        )
    )


def widen(transformer: WanTransformer3DModel) -> WanTransformer3DModel:
    """Return the transformer with channels for the first image, which it does not use yet."""
    config: Any = dict(transformer.config)
    num_channels = config["in_channels"]
    wide: Any = WanTransformer3DModel.from_config(
        {**config, "in_channels": num_channels + CONDITION_CHANNELS}
    )
    weights = transformer.state_dict()
    narrow = weights["patch_embedding.weight"]  # (width, channels, 1, 2, 2)
    added = narrow.new_zeros(narrow.shape[0], CONDITION_CHANNELS, *narrow.shape[2:])
    weights["patch_embedding.weight"] = torch.cat([narrow, added], dim=1)
    wide.load_state_dict(weights)
    return wide


def build_scheduler() -> UniPCMultistepScheduler:
    return wan.build_scheduler()


def assemble(
    tokenizer: Any, text_encoder: Any, autoencoder: Any, transformer: Any
) -> WanImageToVideoPipeline:
    """Assemble the pipeline; its transformer becomes float16, half the size on disk."""
    pipeline_class: Any = WanImageToVideoPipeline
    return pipeline_class(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=autoencoder,
        scheduler=build_scheduler(),
        transformer=transformer.half(),
    )
