"""A tiny pipeline of Bria's Fibo 2 with random weights, whose texts are embeddings.

A text gets 2, 4 or 6 gist tokens. Three of its four blocks read the text, in another
order than their own.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLFlux2,
    BriaFibo2Pipeline,
    BriaFibo2Transformer2DModel,
    FlowMatchEulerDiscreteScheduler,
)

from tests.builders.tiny_joint import finished, randomized

NUM_TEXTS, TEXT_DIM = 4, 4  # hidden states of a text token, and their channels


class Fibo2OfLengths(BriaFibo2Pipeline):
    """Encodes a text as noise, with a token for four of its letters."""

    @staticmethod
    def _get_qwen_prompt_embeds(
        text_encoder: Any, processor: Any, prompt: Any, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        del text_encoder, processor
        lengths = torch.tensor([-(-len(one) // 4) for one in prompt])
        width = int(lengths.max())
        shape = len(prompt), NUM_TEXTS, width, TEXT_DIM
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(5))
        return noise, torch.arange(width) < lengths[:, None]


def fibo2_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "dim": 24,
        "n_layers": 4,
        "n_refiner_layers": 1,
        "n_heads": 2,
        "cap_feat_dim": TEXT_DIM,
        "injection_layer_ids": (3, 0, 2),
        "perceiver_num_layers": 1,
        "min_num_gist_tokens": 2,
        "max_num_gist_tokens": 6,
        "gist_step": 2,
        "gist_min_text_len": 4,
        "gist_max_text_len": 40,
        "axes_dims": (4, 4, 4),
        "axes_lens": (10, 8, 8),
    }
    empty: Any = None
    return finished(
        Fibo2OfLengths(
            transformer=randomized(BriaFibo2Transformer2DModel(**config)),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=empty,
            text_encoder=empty,
            processor=empty,
        )
    )


def with_vae(pipeline: Any) -> Any:
    """Give a pipeline the autoencoder that an image to edit needs, with the same tokens of it."""
    torch.manual_seed(2)
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4,) * 4,
        "latent_channels": 4,
        "norm_num_groups": 2,
    }
    vae = AutoencoderKLFlux2(**config).eval()
    pipeline.register_modules(vae=vae)
    return pipeline
