"""The Shapes image model with Stable Diffusion 3's classes: a joint transformer of two streams.

All three text encoders are there: two CLIP, whose tokens stand before those of T5.
Shape suffixes: B images, C latent channels, H and W latent cells.
"""

from typing import Any

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)

from pipelines.shapes.training.images.latents import (
    LATENT_SHAPE,
    NUM_TRAIN_TIMESTEPS,
    SAMPLING_FLOW_SHIFT,
    ImageText,
)
from pipelines.shapes.training.images.text import CLIP_DIM, MAX_TOKENS, T5_DIM, TextParts

PIPELINE_CLASS = StableDiffusion3Pipeline
GUIDANCE_ARGUMENT = "guidance_scale"
DENOISER = "transformer"
CALL_ARGUMENTS = {"max_sequence_length": MAX_TOKENS}


def build_denoiser(seed: int) -> SD3Transformer2DModel:
    torch.manual_seed(seed)
    return SD3Transformer2DModel(
        sample_size=LATENT_SHAPE[1],
        patch_size=2,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        num_layers=3,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=T5_DIM,
        caption_projection_dim=96,
        pooled_projection_dim=2 * CLIP_DIM,
        pos_embed_max_size=LATENT_SHAPE[1] // 2,
        qk_norm="rms_norm",
    )


def encode(pipeline: Any, captions: list[str]) -> ImageText:
    embeds, _, pooled, _ = pipeline.encode_prompt(
        captions, None, None, do_classifier_free_guidance=False, **CALL_ARGUMENTS
    )
    return ImageText(embeds, pooled)


def words(pipeline: Any, captions: list[str]) -> torch.Tensor:
    """Return True for each token that is of the caption, (B, L), those of CLIP before T5's."""
    masks = [
        tokenizer(
            captions,
            padding="max_length",
            max_length=MAX_TOKENS,
            truncation=True,
            return_tensors="pt",
        ).attention_mask
        for tokenizer in (pipeline.tokenizer, pipeline.tokenizer_3)
    ]
    return torch.cat(masks, dim=1).bool()


def velocity(
    transformer: Any, noisy_BCHW: torch.Tensor, sigmas_B: torch.Tensor, text: ImageText
) -> torch.Tensor:
    return transformer(
        hidden_states=noisy_BCHW,
        timestep=sigmas_B * NUM_TRAIN_TIMESTEPS,
        encoder_hidden_states=text.embeds,
        pooled_projections=text.pooled,
        return_dict=False,
    )[0]


def set_timesteps(scheduler: Any, num_steps: int) -> None:
    scheduler.set_timesteps(num_steps)


def assemble(text: TextParts, vae: Any, transformer: Any) -> StableDiffusion3Pipeline:
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=SAMPLING_FLOW_SHIFT
        ),
        vae=vae,
        text_encoder=text.clip,
        tokenizer=text.clip_tokenizer,
        text_encoder_2=text.clip_2,
        tokenizer_2=text.clip_tokenizer,
        text_encoder_3=text.t5,
        tokenizer_3=text.t5_tokenizer,
    )
