"""Latent upsamplers of real classes at tiny size, with random weights, for LTX's second stage."""

from typing import Any

import torch
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx2.latent_upsampler import LTX2LatentUpsamplerModel

CHANNELS = 8  # as the tiny autoencoders have


def upsampler(family: str, **config: Any) -> Any:
    torch.manual_seed(6)
    model_class: Any = LTXLatentUpsamplerModel if family == "ltx" else LTX2LatentUpsamplerModel
    sizes = {"in_channels": CHANNELS, "mid_channels": 32, "num_blocks_per_stage": 1}
    return model_class(**sizes | config).eval()
