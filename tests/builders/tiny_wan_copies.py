"""Models made from Wan, of real classes at tiny size, with random weights.

Helios, AnyFlow, ChronoEdit and Wan Animate. They are called with embeddings.
"""

from typing import Any

import torch
from diffusers import (
    AnyFlowPipeline,
    AnyFlowTransformer3DModel,
    ChronoEditPipeline,
    ChronoEditTransformer3DModel,
    FlowMapEulerDiscreteScheduler,
    HeliosPipeline,
    HeliosPyramidPipeline,
    HeliosScheduler,
    HeliosTransformer3DModel,
    WanAnimateTransformer3DModel,
)

from tests.builders import tiny

SIZES: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": tiny.HEAD_DIM,
    "in_channels": 8,
    "out_channels": 8,
    "text_dim": tiny.TEXT_DIM,
    "freq_dim": 32,
    "ffn_dim": 48,
    "num_layers": 2,
}
# One latent frame in each of two parts, the second one with the first in its history.
HELIOS_CALL: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "num_frames": 2,
    "history_sizes": [4, 2, 1],
    "num_latent_frames_per_chunk": 1,
}


def _pipeline(kind: Any, transformer: Any, scheduler: Any, vae: Any = None) -> Any:
    pipeline = kind(
        tokenizer=None,
        text_encoder=None,
        transformer=transformer.eval(),
        vae=vae,
        scheduler=scheduler,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def anyflow_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = AnyFlowTransformer3DModel(rope_max_seq_len=32, **SIZES)
    return _pipeline(AnyFlowPipeline, transformer, FlowMapEulerDiscreteScheduler())


def helios_transformer() -> HeliosTransformer3DModel:
    torch.manual_seed(0)
    rope_dim = (tiny.HEAD_DIM - 8, 4, 4)
    return HeliosTransformer3DModel(rope_dim=rope_dim, is_amplify_history=True, **SIZES)


def helios_pipeline() -> Any:
    return _pipeline(
        HeliosPipeline, helios_transformer(), HeliosScheduler(stages=1, stage_range=[0, 1]),
        tiny.shared(tiny.wan_vae),
    )  # fmt: skip


def helios_pyramid_pipeline() -> Any:
    """Build a pyramid of two stages; at the default gamma its noise may not be drawn on a CPU."""
    return _pipeline(
        HeliosPyramidPipeline, helios_transformer(),
        HeliosScheduler(stages=2, stage_range=[0, 0.5, 1], gamma=0.3), tiny.shared(tiny.wan_vae),
    )  # fmt: skip


def chronoedit_pipeline() -> ChronoEditPipeline:
    torch.manual_seed(0)
    transformer = ChronoEditTransformer3DModel(
        num_attention_heads=2, attention_head_dim=tiny.HEAD_DIM, in_channels=8 + 8 + 4,
        out_channels=8, text_dim=tiny.TEXT_DIM, freq_dim=32, ffn_dim=48, num_layers=2,
        image_dim=tiny.IMAGE_DIM, added_kv_proj_dim=2 * tiny.HEAD_DIM, rope_max_seq_len=32,
    ).eval()  # fmt: skip
    stock: Any = tiny.wan_image_to_video_pipeline()
    names = ("tokenizer", "text_encoder", "image_encoder", "image_processor", "vae", "scheduler")
    parts = {name: getattr(stock, name) for name in names}
    pipeline = ChronoEditPipeline(transformer=transformer, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wan_animate_transformer() -> WanAnimateTransformer3DModel:
    """Build Wan Animate's transformer, with one block for the face."""
    torch.manual_seed(0)
    return WanAnimateTransformer3DModel(
        num_attention_heads=2, attention_head_dim=tiny.HEAD_DIM, in_channels=8 + 8 + 4,
        latent_channels=8, out_channels=8, text_dim=tiny.TEXT_DIM, freq_dim=32, ffn_dim=48,
        num_layers=2, image_dim=tiny.IMAGE_DIM, added_kv_proj_dim=2 * tiny.HEAD_DIM,
        rope_max_seq_len=32, motion_encoder_size=16, motion_style_dim=8, motion_dim=4,
        motion_encoder_dim=8, face_encoder_hidden_dim=8, face_encoder_num_heads=2,
        inject_face_latents_blocks=1, motion_encoder_channel_sizes={str(2**n): 4 for n in range(8)},
    ).eval()  # fmt: skip
