"""SkyReels V2's pipelines at tiny size, with random weights."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    SkyReelsV2DiffusionForcingImageToVideoPipeline,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
)

from tests.builders import tiny


def transformer(
    image_dim: int | None = None, in_channels: int = 8, has_fps: bool = False
) -> SkyReelsV2Transformer3DModel:
    """Build a transformer; `has_fps` gives it the frame rate as an input, as in DF 1.3B."""
    torch.manual_seed(0)
    return SkyReelsV2Transformer3DModel(
        patch_size=(1, 2, 2),  # pyright: ignore[reportArgumentType] - annotated as one number
        num_attention_heads=2,
        attention_head_dim=tiny.HEAD_DIM,
        in_channels=in_channels,
        out_channels=8,
        text_dim=tiny.TEXT_DIM,
        freq_dim=32,
        ffn_dim=48,
        num_layers=2,
        rope_max_seq_len=32,
        image_dim=image_dim,
        added_kv_proj_dim=2 * tiny.HEAD_DIM if image_dim else None,
        inject_sample_info=has_fps,
    ).eval()


def _built(pipeline_class: Any, stock: Any, model: SkyReelsV2Transformer3DModel) -> Any:
    """Return a pipeline with this transformer and the other parts of a Wan pipeline."""
    parts = {name: part for name, part in stock.components.items() if name != "transformer_2"}
    pipeline = pipeline_class(**{**parts, "transformer": model})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_to_video() -> SkyReelsV2Pipeline:
    return _built(SkyReelsV2Pipeline, tiny.wan_pipeline(), transformer())


def image_to_video() -> SkyReelsV2ImageToVideoPipeline:
    return _built(
        SkyReelsV2ImageToVideoPipeline,
        tiny.wan_image_to_video_pipeline(),
        transformer(tiny.IMAGE_DIM, 8 + 8 + 4),
    )


def diffusion_forcing(has_fps: bool = False) -> SkyReelsV2DiffusionForcingPipeline:
    return _built(
        SkyReelsV2DiffusionForcingPipeline, tiny.wan_pipeline(), transformer(has_fps=has_fps)
    )


def diffusion_forcing_from_image() -> SkyReelsV2DiffusionForcingImageToVideoPipeline:
    return _built(
        SkyReelsV2DiffusionForcingImageToVideoPipeline, tiny.wan_pipeline(), transformer()
    )


STOCK: dict[str, Callable[[], Any]] = {
    "skyreels-t2v": text_to_video,
    "skyreels-i2v": image_to_video,
    "skyreels-df": lambda: diffusion_forcing(has_fps=True),
    "skyreels-df-i2v": diffusion_forcing_from_image,
}
