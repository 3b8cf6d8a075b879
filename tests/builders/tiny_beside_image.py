"""Models whose image attends to the text and to itself at once, of real classes at tiny size.

Their weights are random. They are called with embeddings and return latents.
"""

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
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
