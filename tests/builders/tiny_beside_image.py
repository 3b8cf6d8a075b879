"""Models whose image attends to the text and to itself at once, of real classes at tiny size.

Their weights are random. They are called with embeddings and return latents.
"""

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    NucleusMoEImagePipeline,
    NucleusMoEImageTransformer2DModel,
    PRXPipeline,
    PRXPixelPipeline,
    PRXTransformer2DModel,
)

from tests.builders.tiny import TEXT_DIM


def prx_pipeline(kind: Any = PRXPipeline) -> Any:
    torch.manual_seed(0)
    of_pixels = kind is PRXPixelPipeline
    transformer = PRXTransformer2DModel(
        in_channels=3 if of_pixels else 4,
        context_in_dim=TEXT_DIM,
        hidden_size=16,
        num_heads=2,
        depth=2,
        mlp_ratio=2.0,
        axes_dim=[4, 4],
        bottleneck_size=8 if of_pixels else None,
        resolution_embeds=of_pixels,
    )
    for weight in transformer.parameters():  # some are zero when new, which switches blocks off
        torch.nn.init.normal_(weight, std=0.3)
    pipeline = kind(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        text_encoder=None,
        tokenizer=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def nucleus_moe_pipeline() -> Any:
    """Build NucleusMoE: keys and values have half the heads of its queries; a block has experts."""
    torch.manual_seed(0)
    transformer = NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_heads=2,
        joint_attention_dim=TEXT_DIM,
        axes_dims_rope=(4, 2, 2),
        mlp_ratio=6.0,
        dense_moe_strategy="leave_first_block_dense",
        num_experts=4,
        moe_intermediate_dim=16,
        capacity_factors=2.0,
    )
    for weight in transformer.parameters():  # the memory of the experts is not set when new
        torch.nn.init.normal_(weight, std=0.2)
    kind: Any = NucleusMoEImagePipeline
    pipeline = kind(
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=None,
        processor=None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
