"""The Shapes image model with Stable Diffusion XL's classes: a UNet with text and time embeddings.

The UNet predicts the flow, and UniPC samples it as it samples shapes-wan; both are ordinary
settings of the stock classes.
Shape suffixes: B images, C latent channels, H and W latent cells.
"""

from typing import Any

import torch
from diffusers import (
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)

from pipelines.shapes.training.images.latents import (
    LATENT_SHAPE,
    NUM_TRAIN_TIMESTEPS,
    SAMPLING_FLOW_SHIFT,
    ImageText,
)
from pipelines.shapes.training.images.text import (
    CLIP_DIM,
    TextParts,
    clip_without_projection,
)
from pipelines.shapes.world import SIZE_PX

PIPELINE_CLASS = StableDiffusionXLPipeline
GUIDANCE_ARGUMENT = "guidance_scale"
DENOISER = "unet"
CALL_ARGUMENTS: dict[str, Any] = {}
SIZES = (SIZE_PX, SIZE_PX, 0, 0, SIZE_PX, SIZE_PX)  # original size, crop, target size
SIZE_EMBED_DIM = 8


def build_denoiser(seed: int) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=LATENT_SHAPE[1],
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        block_out_channels=(48, 96),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=1,
        attention_head_dim=3,  # the number of heads, under this class's old name
        cross_attention_dim=2 * CLIP_DIM,
        norm_num_groups=16,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=SIZE_EMBED_DIM,
        projection_class_embeddings_input_dim=len(SIZES) * SIZE_EMBED_DIM + CLIP_DIM,
    )


def encode(pipeline: Any, captions: list[str]) -> ImageText:
    embeds, _, pooled, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    return ImageText(embeds, pooled)


def velocity(
    unet: Any, noisy_BCHW: torch.Tensor, sigmas_B: torch.Tensor, text: ImageText
) -> torch.Tensor:
    sizes_B6 = torch.tensor(SIZES, dtype=torch.float32).expand(len(noisy_BCHW), -1)
    return unet(
        noisy_BCHW,
        sigmas_B * NUM_TRAIN_TIMESTEPS,
        encoder_hidden_states=text.embeds,
        added_cond_kwargs={"text_embeds": text.pooled, "time_ids": sizes_B6},
        return_dict=False,
    )[0]


def set_timesteps(scheduler: Any, num_steps: int) -> None:
    scheduler.set_timesteps(num_steps)


def assemble(text: TextParts, vae: Any, unet: Any) -> StableDiffusionXLPipeline:
    pipeline_class: Any = StableDiffusionXLPipeline  # its annotation names no class of scheduler
    return pipeline_class(
        vae=vae,
        text_encoder=clip_without_projection(text),
        text_encoder_2=text.clip_2,
        tokenizer=text.clip_tokenizer,
        tokenizer_2=text.clip_tokenizer,
        unet=unet,
        scheduler=UniPCMultistepScheduler(
            num_train_timesteps=NUM_TRAIN_TIMESTEPS,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=SAMPLING_FLOW_SHIFT,
        ),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
