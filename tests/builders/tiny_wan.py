"""Wan pipelines whose clips begin with images or videos, at tiny size, with random weights."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    WanImageToVideoPipeline,
    WanPipeline,
    WanVideoToVideoPipeline,
)

from tests.builders import tiny

SMALL_CHANNELS = 12  # the channels of latents of the 5B model


def vae_of_the_5b_model() -> AutoencoderKLWan:
    """Build an autoencoder of Wan 2.2 5B: its pixels come in patches, 16 x 16 to a latent."""
    torch.manual_seed(2)
    return AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=SMALL_CHANNELS,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1] * SMALL_CHANNELS,
        latents_std=[0.8] * SMALL_CHANNELS,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    ).eval()


def pipeline_of_the_5b_model() -> WanPipeline:
    """Build Wan 2.2 5B's layout, whose clips begin with a text alone or with an image too."""
    pipeline = tiny.wan_pipeline()
    pipeline.register_modules(
        vae=tiny.shared(vae_of_the_5b_model),
        transformer=tiny.wan_transformer(
            0, in_channels=SMALL_CHANNELS, out_channels=SMALL_CHANNELS
        ),
    )
    pipeline.register_to_config(expand_timesteps=True)
    return _rebuilt(pipeline)


def _rebuilt(pipeline: Any, pipeline_class: Any = WanPipeline, **parts: Any) -> Any:
    """Return a pipeline of the same parts and settings, which measures its autoencoder anew."""
    settings = {name: pipeline.config[name] for name in ("boundary_ratio", "expand_timesteps")}
    built = pipeline_class(**{**pipeline.components, **settings, **parts})
    built.set_progress_bar_config(disable=True)
    return built


def image_to_video_pipeline_of_the_5b_model() -> WanImageToVideoPipeline:
    return _rebuilt(pipeline_of_the_5b_model(), WanImageToVideoPipeline)


def image_to_video_pipeline_without_encoder() -> WanImageToVideoPipeline:
    """Build Wan 2.2 A14B's image-to-video layout: two transformers, and no image encoder."""
    return _rebuilt(
        tiny.wan_pipeline(two_transformers=True),
        WanImageToVideoPipeline,
        vae=tiny.shared(tiny.wan_vae_that_encodes_once),
        transformer=tiny.wan_transformer(0, in_channels=8 + 8 + 4),
        transformer_2=tiny.wan_transformer(7, in_channels=8 + 8 + 4),
    )


def video_to_video_pipeline() -> WanVideoToVideoPipeline:
    stock: Any = tiny.wan_pipeline()
    pipeline = WanVideoToVideoPipeline(
        stock.tokenizer, stock.text_encoder, stock.transformer, stock.vae, stock.scheduler
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


STOCK: dict[str, Callable[[], Any]] = {
    "wan2.1-i2v": tiny.wan_image_to_video_pipeline,
    "wan2.1-flf2v": lambda: tiny.wan_image_to_video_pipeline(with_last_image=True),
    "wan2.2-i2v": image_to_video_pipeline_without_encoder,
    "wan2.2-5b": pipeline_of_the_5b_model,
    "wan2.2-5b-i2v": image_to_video_pipeline_of_the_5b_model,
    "wan2.1-v2v": video_to_video_pipeline,
    "wan2.1-vace": tiny.wan_vace_pipeline,
}
