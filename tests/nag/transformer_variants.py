"""The variants of the pipelines with transformers, one row for each."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLQwenImage,
    FluxControlNetModel,
    QwenImageControlNetModel,
    SD3ControlNetModel,
)

from nag import NegativeText
from tests.builders import tiny_diffusion_transformers as tiny_dits
from tests.builders import tiny_joint, tiny_sequence, tiny_text_transformers
from tests.builders.tiny import shared
from tests.builders.tiny_joint import POOLED_DIM, TEXT_DIM
from tests.nag.unet_variants import LENGTH, PX, picture
from tests.nag.variants import Pool, Variant, seeded


def latent_vae(latent_channels: int = 4) -> AutoencoderKL:
    """Build an autoencoder that keeps the size, so that an image of 8 px has 8 x 8 latents."""
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=latent_channels,
        shift_factor=0.1,
    ).eval()


def qwen_vae(num_colors: int = 3) -> AutoencoderKLQwenImage:
    torch.manual_seed(2)
    return AutoencoderKLQwenImage(
        input_channels=num_colors,
        base_dim=4,
        z_dim=4,
        dim_mult=[1],
        num_res_blocks=1,
        temperal_downsample=[],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    ).eval()


def mask_of(length: int) -> torch.Tensor:
    return torch.ones(1, length, dtype=torch.bool)


def texts(seed: int, prefix: str = "") -> Pool:
    embeds = seeded(seed, 1, LENGTH, TEXT_DIM)
    return {
        f"{prefix}prompt_embeds": embeds,
        f"{prefix}pooled_prompt_embeds": seeded(seed + 20, 1, POOLED_DIM),
        f"{prefix}prompt_embeds_mask": mask_of(LENGTH),
        f"{prefix}prompt_attention_mask": mask_of(LENGTH),
    }


def arguments(side: int = PX) -> Pool:
    sized = partial(picture, side=side)
    return {
        **texts(1),
        **texts(4, "negative_"),
        "height": side,
        "width": side,
        "image": sized(7),
        "mask_image": (sized(8, channels=1) > 0.5).float(),
        "control_image": sized(9),
        "control_mask": (sized(8, channels=1) > 0.5).float(),
        "image_reference": sized(10),
        "true_cfg_scale": 3.0,
        "guidance_scale": 3.0,
        "negative_prompt": None,
        "use_resolution_binning": False,
    }


def negative(seed: int) -> NegativeText:
    pooled = seeded(seed + 20, 1, POOLED_DIM)
    return NegativeText(seeded(seed, 1, LENGTH, TEXT_DIM), pooled=pooled)


def masked_negative(seed: int) -> NegativeText:
    return NegativeText(seeded(seed, 1, LENGTH, TEXT_DIM), mask_of(LENGTH))


def parts_of(build: Callable[..., Any], vae: Callable[[], Any] = latent_vae, **sizes: Any) -> Pool:
    return {**build(**sizes).components, "vae": shared(vae)}


def sd3_of_16_channels() -> Pool:
    """Return the parts of the only SD3 that the pipeline for inpainting takes."""
    sizes = {"in_channels": 16, "out_channels": 16}
    parts = tiny_joint.sd3_pipeline().components
    return {
        **parts,
        "transformer": tiny_joint.sd3_transformer(**sizes),
        "vae": shared(latent_vae, 16),
    }


def chroma(*, has_guidance: bool = False) -> Pool:
    parts = parts_of(tiny_dits.chroma_pipeline)
    if has_guidance:  # the pipeline reads a setting that the class has not
        parts["transformer"].register_to_config(guidance_embeds=False)
    return parts


FLUX_CONTROL_NET: dict[str, Any] = {
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 12,
    "num_attention_heads": 2,
}


def _of_flux(name: str, channels: int = 16) -> Variant:
    sizes = {"in_channels": channels, "out_channels": 16} if channels != 16 else {}

    def changes(pool: Pool) -> Pool:
        if "ControlNet" not in name:
            return {}
        net = FluxControlNetModel.from_transformer(pool["transformer"], **FLUX_CONTROL_NET)
        return {"controlnet": tiny_joint.randomized(net)}

    parts = partial(parts_of, tiny_joint.flux_pipeline, **sizes)
    further = {"max_area": PX * PX, "_auto_resize": False}
    return Variant(name, parts, arguments, negative, changes=changes, further=further)


def _of_sd3(name: str, further: Pool | None = None, **changes: Any) -> Variant:
    def more(_pool: Pool) -> Pool:
        if "ControlNet" not in name:
            return {}
        torch.manual_seed(5)
        net: Any = SD3ControlNetModel(
            sample_size=8,
            num_layers=1,
            in_channels=4,
            joint_attention_dim=TEXT_DIM,
            caption_projection_dim=24,
            pooled_projection_dim=POOLED_DIM,
            out_channels=4,
            pos_embed_max_size=8,
            **tiny_joint.HEADS,
            **changes,
        )
        return {"controlnet": tiny_joint.randomized(net)}

    parts = partial(parts_of, tiny_joint.sd3_pipeline)
    return Variant(name, parts, arguments, negative, changes=more, further=further or {})


def _of_qwen_image(name: str, extra_channels: int = 0, **further: Any) -> Variant:
    def changes(pool: Pool) -> Pool:
        if "ControlNet" not in name:
            return {}
        net = QwenImageControlNetModel.from_transformer(
            pool["transformer"],
            num_layers=1,
            attention_head_dim=12,
            num_attention_heads=2,
            extra_condition_channels=extra_channels,
        )
        return {"controlnet": tiny_joint.randomized(net)}

    parts = partial(parts_of, tiny_joint.qwen_image_pipeline, qwen_vae)
    return Variant(name, parts, arguments, masked_negative, changes=changes, further=further)


def of_z_image(name: str, changes: Callable[[Pool], Pool] = lambda _pool: {}) -> Variant:
    def given() -> Pool:
        pool = arguments()
        names = ("prompt_embeds", "negative_prompt_embeds")
        return pool | {one: [pool[one][0]] for one in names}

    parts = partial(parts_of, tiny_sequence.z_image_pipeline)
    return Variant(name, parts, given, masked_negative, "cap_feats", changes=changes)


ROWS = (
    *(
        _of_flux(f"Flux{one}Pipeline")
        for one in (
            "Img2Img",
            "Inpaint",
            "ControlNet",
            "ControlNetImg2Img",
            "ControlNetInpaint",
            "KontextInpaint",
        )
    ),
    _of_flux("FluxControlPipeline", 32),
    _of_flux("FluxControlImg2ImgPipeline", 32),
    _of_flux("FluxControlInpaintPipeline", 32),
    *(_of_sd3(f"StableDiffusion3{one}Pipeline") for one in ("Img2Img", "ControlNet")),
    Variant("StableDiffusion3InpaintPipeline", sd3_of_16_channels, arguments, negative),
    # Its perturbation takes an attention to the text, so guidance needs it off.
    _of_sd3("StableDiffusion3PAGImg2ImgPipeline", further={"pag_scale": 0.0}),
    _of_sd3("StableDiffusion3ControlNetInpaintingPipeline", extra_conditioning_channels=1),
    *(_of_qwen_image(f"QwenImage{one}Pipeline") for one in ("Img2Img", "Inpaint", "ControlNet")),
    _of_qwen_image("QwenImageControlNetInpaintPipeline", 4),
    of_z_image("ZImageInpaintPipeline"),
    Variant("ChromaImg2ImgPipeline", chroma, arguments, masked_negative),
    Variant(
        "ChromaInpaintPipeline", partial(chroma, has_guidance=True), arguments, masked_negative
    ),
    Variant(
        "CogView4ControlPipeline",
        partial(parts_of, partial(tiny_dits.cogview4_pipeline, in_channels=8)),
        partial(arguments, 16),
        negative,
    ),
    Variant(
        "Flux2KleinInpaintPipeline",
        lambda: tiny_sequence.klein_pipeline().components,
        partial(arguments, 32),
        negative,
    ),
    *(
        Variant(
            name,
            partial(parts_of, tiny_text_transformers.pixart_pipeline),
            arguments,
            masked_negative,
        )
        for name in ("PixArtAlphaPipeline", "PixArtSigmaPAGPipeline")
    ),
    Variant(
        "SanaPAGPipeline",
        lambda: tiny_text_transformers.sana_pipeline().components,
        partial(arguments, 64),
        masked_negative,
    ),
)
