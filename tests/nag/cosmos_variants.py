"""The variants of Cosmos whose clips begin with images or videos, one row for each."""

from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    CosmosControlNetModel,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from tests.builders import tiny, tiny_image_inputs, tiny_joint, tiny_text_transformers
from tests.builders.tiny import shared
from tests.builders.tiny_text_transformers import HEAD_DIM, HEADS, WIDTH, cosmos_transformer
from tests.nag.transformer_variants import negative
from tests.nag.variants import Pool, Variant
from tests.nag.video_input_variants import with_frames

LATENTS = 8  # channels of Wan's latents


def cosmos(version: str) -> Pool:
    """Return the parts of Cosmos 1, 2 or 2.5; their transformers see a mask of known frames."""
    is_25 = version.startswith("2.5")
    image_tokens = 3 if version == "2.5 transfer" else None
    latents = 4 if version == "1" else LATENTS
    flow: Pool = {"use_karras_sigmas": True, "use_flow_sigmas": True}
    schedulers: Pool = {
        "1": EDMEulerScheduler,
        "2": partial(FlowMatchEulerDiscreteScheduler, use_karras_sigmas=True),
    }
    unipc = partial(UniPCMultistepScheduler, prediction_type="flow_prediction", **flow)
    vae = tiny_image_inputs.cosmos_vae if version == "1" else tiny.wan_vae_that_encodes_once
    return {
        "transformer": cosmos_transformer(
            image_tokens,
            is_25=is_25,
            in_channels=latents + 1,
            out_channels=latents,
            controlnet_block_every_n=2 if image_tokens else None,
        ),
        "vae": shared(vae),
        "scheduler": schedulers.get(version, unipc)(),
        "safety_checker": tiny_text_transformers.NoSafetyChecker(),
    }


class Torchvision:
    """Stands for torchvision, which resizes a mask of zeros for the ControlNet."""

    functional = SimpleNamespace(resize=lambda mask, size, **_: mask.new_zeros(1, 1, *size))
    InterpolationMode = SimpleNamespace(NEAREST="nearest")


def cosmos_control(_pool: Pool) -> Pool:
    torch.manual_seed(5)
    net = CosmosControlNetModel(
        n_controlnet_blocks=1,
        in_channels=LATENTS + 2,
        latent_channels=LATENTS + 2,
        model_channels=WIDTH,
        num_attention_heads=HEADS,
        attention_head_dim=HEAD_DIM,
        mlp_ratio=2,
        text_embed_dim=WIDTH,
        adaln_lora_dim=4,
        max_size=(2, 16, 16),
        img_context_dim_in=6,
        img_context_dim_out=WIDTH,
        use_crossattn_projection=True,
        crossattn_proj_in_channels=tiny.TEXT_DIM,
        encoder_hidden_states_channels=WIDTH,
    )
    return {"controlnet": tiny_joint.randomized(net)}


def _of_cosmos(name: str, version: str, **others: Any) -> Variant:
    return Variant(name, partial(cosmos, version), partial(with_frames, 32), negative, **others)


ROWS = (
    _of_cosmos("CosmosVideoToWorldPipeline", "1", further={"video": None}),
    _of_cosmos("Cosmos2VideoToWorldPipeline", "2"),
    _of_cosmos("Cosmos2_5_PredictBasePipeline", "2.5", further={"image": None, "video": None}),
    _of_cosmos(
        "Cosmos2_5_TransferPipeline",
        "2.5 transfer",
        changes=cosmos_control,
        patches={"models.controlnets.controlnet_cosmos.transforms": Torchvision},
    ),
)
