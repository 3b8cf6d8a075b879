"""The Shapes image model with Flux's classes: double-stream blocks, then single-stream blocks.

It has no distilled guidance (`guidance_embeds`): classifier-free guidance is the pipeline's
`true_cfg_scale`.
Shape suffixes: B images, C latent channels, H and W latent cells, L patches of 2 x 2 cells.
"""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from pipelines.shapes.training.images.latents import (
    LATENT_SHAPE,
    NUM_TRAIN_TIMESTEPS,
    SAMPLING_FLOW_SHIFT,
    ImageText,
)
from pipelines.shapes.training.images.text import (
    CLIP_DIM,
    MAX_TOKENS,
    T5_DIM,
    TextParts,
    clip_without_projection,
)

PIPELINE_CLASS = FluxPipeline
GUIDANCE_ARGUMENT = "true_cfg_scale"
DENOISER = "transformer"
CALL_ARGUMENTS = {"max_sequence_length": MAX_TOKENS}


def build_denoiser(seed: int) -> FluxTransformer2DModel:
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_SHAPE[0],
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=T5_DIM,
        pooled_projection_dim=CLIP_DIM,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


def encode(pipeline: Any, captions: list[str]) -> ImageText:
    embeds, pooled, _ = pipeline.encode_prompt(captions, None, **CALL_ARGUMENTS)
    return ImageText(embeds, pooled)


def velocity(
    transformer: Any, noisy_BCHW: torch.Tensor, sigmas_B: torch.Tensor, text: ImageText
) -> torch.Tensor:
    rows, columns = (size // 2 for size in noisy_BCHW.shape[2:])
    patches = noisy_BCHW.unflatten(3, (columns, 2)).unflatten(2, (rows, 2))  # (B, C, h, y, w, x)
    image_ids_L3 = torch.zeros(rows, columns, 3)
    image_ids_L3[..., 1] = torch.arange(rows)[:, None]
    image_ids_L3[..., 2] = torch.arange(columns)[None]
    flow_BLD = transformer(
        hidden_states=patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2),
        timestep=sigmas_B,
        encoder_hidden_states=text.embeds,
        pooled_projections=text.pooled,
        txt_ids=torch.zeros(text.embeds.shape[1], 3),
        img_ids=image_ids_L3.flatten(0, 1),
        return_dict=False,
    )[0]
    flow = flow_BLD.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))  # (B, h, w, C, y, x)
    return flow.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


def set_timesteps(scheduler: Any, num_steps: int) -> None:
    scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist())


def assemble(text: TextParts, vae: Any, transformer: Any) -> FluxPipeline:
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=SAMPLING_FLOW_SHIFT
        ),
        vae=vae,
        text_encoder=clip_without_projection(text),
        tokenizer=text.clip_tokenizer,
        text_encoder_2=text.t5,
        tokenizer_2=text.t5_tokenizer,
        transformer=transformer,
    )
