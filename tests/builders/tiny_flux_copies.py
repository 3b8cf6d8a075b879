"""Pipelines of models made from Flux, at tiny size, with random weights and without encoders."""

from typing import Any

import torch
from diffusers import (
    BriaPipeline,
    BriaTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    LongCatImagePipeline,
    LongCatImageTransformer2DModel,
    OvisImagePipeline,
    OvisImageTransformer2DModel,
)
from diffusers.pipelines.longcat_image.pipeline_longcat_image import prepare_pos_ids

from tests.builders.tiny_joint import HEADS, TEXT_DIM, autoencoder, finished, randomized

SIZES: dict[str, Any] = {
    "num_layers": 2,
    "num_single_layers": 2,
    "joint_attention_dim": TEXT_DIM,
    "axes_dims_rope": (4, 4, 4),
    **HEADS,
}


def _pipeline(pipeline_class: Any, transformer: Any, **parts: Any) -> Any:
    return finished(
        pipeline_class(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            transformer=randomized(transformer),
            **{"vae": None, "text_encoder": None, "tokenizer": None, **parts},
        )
    )


def ovis_image_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = OvisImageTransformer2DModel(in_channels=16, out_channels=16, **SIZES)
    return _pipeline(OvisImagePipeline, transformer)


class LongCatOfEmbeddings(LongCatImagePipeline):
    """Takes embeddings alone, as its signature says; diffusers 0.42 fails without a prompt."""

    def rewire_prompt(self, prompt: Any, device: Any) -> Any:
        return prompt

    def encode_prompt(
        self, prompt: Any = None, num_images_per_prompt: int | None = 1, prompt_embeds: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return prompt_embeds, prepare_pos_ids(num_token=prompt_embeds.shape[1])


def longcat_image_pipeline() -> Any:
    torch.manual_seed(0)
    # Its pipeline makes latents of 16 channels, in patches of 2 by 2.
    transformer = LongCatImageTransformer2DModel(in_channels=64, **SIZES)
    return _pipeline(LongCatOfEmbeddings, transformer, text_processor=None)


def bria_pipeline() -> Any:
    torch.manual_seed(0)
    return _pipeline(
        BriaPipeline, BriaTransformer2DModel(in_channels=16, **SIZES), vae=autoencoder()
    )
