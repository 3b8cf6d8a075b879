"""The variants of the pipelines that make clips or sound, and of large families' ControlNets."""

from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    EDMEulerScheduler,
    HunyuanDiT2DControlNetModel,
    ZImageControlNetModel,
)

from nag import NegativeText
from tests.builders import (
    tiny,
    tiny_cross_attention,
    tiny_joint,
    tiny_pooled_text,
    tiny_text_transformers,
)
from tests.builders.tiny import TEXT_DIM, shared
from tests.builders.tiny_joint_videos import OF_VAE
from tests.nag import transformer_variants
from tests.nag.transformer_variants import masked_negative, negative, parts_of
from tests.nag.unet_variants import LENGTH, frames
from tests.nag.variants import Pool, Variant, seeded

SIDE, NUM_FRAMES = 32, 5


def arguments(side: int = SIDE) -> Pool:
    whole = transformer_variants.arguments(side)
    video = [one.resize((side, side)) for one in frames(*range(20, 20 + NUM_FRAMES))]
    return {**whole, "num_frames": NUM_FRAMES, "frames": NUM_FRAMES, "video": video}


def second_texts(prefix: str = "", seed: int = 31) -> Pool:
    return {
        f"{prefix}prompt_embeds_2": seeded(seed, 1, LENGTH, TEXT_DIM),
        f"{prefix}prompt_attention_mask_2": torch.ones(1, LENGTH, dtype=torch.bool),
    }


def hunyuan_dit_negative(seed: int) -> NegativeText:
    first = masked_negative(seed)
    return NegativeText(
        first.embeds,
        first.attention_mask,
        second_embeds=seeded(seed + 40, 1, LENGTH, TEXT_DIM),
        second_mask=torch.ones(1, LENGTH, dtype=torch.bool),
    )


def hunyuan_vae() -> AutoencoderKLHunyuanVideo:
    torch.manual_seed(2)
    return AutoencoderKLHunyuanVideo(**OF_VAE, mid_block_add_attention=False).eval()


def hunyuan_dit() -> Pool:
    stock = tiny_pooled_text.hunyuan_dit_pipeline(LENGTH, LENGTH, num_layers=4)
    return {
        **stock.components,
        "vae": shared(transformer_variants.latent_vae),
        "requires_safety_checker": False,
    }


def hunyuan_dit_control(pool: Pool) -> Pool:
    torch.manual_seed(5)
    known = signature(HunyuanDiT2DControlNetModel.__init__).parameters
    config = {name: one for name, one in pool["transformer"].config.items() if name in known}
    net: Any = HunyuanDiT2DControlNetModel(**config, transformer_num_layers=4)
    return {"controlnet": tiny_joint.randomized(net)}


def z_image_control(pool: Pool, in_channels: int = 4) -> Pool:
    torch.manual_seed(5)
    net: Any = ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=in_channels,
        add_control_noise_refiner="control_layers",
        dim=24,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    tiny_joint.randomized(net)
    return {"controlnet": ZImageControlNetModel.from_transformer(net, pool["transformer"])}


def cosmos1() -> Pool:
    parts = tiny_text_transformers.cosmos_pipeline().components
    checker = tiny_text_transformers.NoSafetyChecker()
    return {**parts, "safety_checker": checker, "scheduler": EDMEulerScheduler()}


class SoundEncoder(tiny_cross_attention.SoundCodec):
    """Stands for an autoencoder of sound, each pair of samples one latent."""

    def parameters(self) -> Any:
        return iter([torch.zeros(1)])

    def encode(self, audio: torch.Tensor) -> Any:
        return SimpleNamespace(
            latents=audio.unflatten(2, (-1, 2)).flatten(1, 1)[..., 0].repeat(1, 2, 1)
        )


def stable_audio3() -> Pool:
    return {**tiny_cross_attention.stable_audio3_pipeline().components, "vae": SoundEncoder()}


def sound(rows: int = 1) -> Pool:
    return {
        **transformer_variants.texts(1),
        "encoder_attention_mask": torch.ones(rows, LENGTH),
        "duration": 1.0,
        "audio": seeded(9, rows, 2, 8),
        "mask_start_seconds": 0.0,
        "mask_end_seconds": 0.5,
    }


def kandinsky_arguments() -> Pool:
    ends = torch.tensor([0, LENGTH])
    found = arguments(64)
    for seed, prefix in ((1, ""), (4, "negative_")):
        found[f"{prefix}prompt_embeds_qwen"] = seeded(seed, 1, LENGTH, TEXT_DIM)
        found[f"{prefix}prompt_embeds_clip"] = seeded(seed + 30, 1, TEXT_DIM)
        found[f"{prefix}prompt_cu_seqlens"] = ends
    return found


def wan_editing() -> Pool:
    parts = tiny.wan_pipeline().components
    return {**parts, "transformer": tiny.wan_transformer(0, in_channels=16)}


ROWS = (
    Variant("LucyEditPipeline", wan_editing, arguments, negative),
    Variant(
        "HunyuanSkyreelsImageToVideoPipeline",
        partial(parts_of, tiny_joint.hunyuan_video_pipeline, hunyuan_vae, in_channels=8),
        arguments,
        lambda seed: NegativeText(
            seeded(seed, 1, LENGTH, TEXT_DIM),
            torch.ones(1, LENGTH, dtype=torch.bool),
            pooled=seeded(seed + 20, 1, tiny_joint.POOLED_DIM),
        ),
    ),
    Variant("CosmosTextToWorldPipeline", cosmos1, arguments, negative),
    Variant(
        "Kandinsky5T2VPipeline",
        lambda: tiny_text_transformers.kandinsky_pipeline().components,
        kandinsky_arguments,
        negative,
        prompt="prompt_embeds_qwen",
    ),
    Variant(
        "SanaImageToVideoPipeline",
        lambda: {
            **tiny_text_transformers.sana_video_pipeline(8).components,
            "vae": shared(tiny.wan_vae_that_encodes_once),
        },
        partial(arguments, 64),
        masked_negative,
    ),
    Variant("StableAudio3AudioToAudioPipeline", stable_audio3, sound, masked_negative),
    Variant("StableAudio3InpaintPipeline", stable_audio3, sound, masked_negative),
    Variant(
        "HunyuanDiTPAGPipeline",
        hunyuan_dit,
        lambda: {
            **transformer_variants.arguments(16),
            **second_texts(),
            **second_texts("negative_", 32),
        },
        hunyuan_dit_negative,
    ),
    Variant(
        "HunyuanDiTControlNetPipeline",
        hunyuan_dit,
        lambda: {
            **transformer_variants.arguments(16),
            **second_texts(),
            **second_texts("negative_", 32),
        },
        hunyuan_dit_negative,
        changes=hunyuan_dit_control,
    ),
    transformer_variants.of_z_image("ZImageControlNetPipeline", z_image_control),
)
