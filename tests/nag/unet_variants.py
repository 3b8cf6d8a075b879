"""The variants of the pipelines with UNets, one row for each."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
)
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from PIL import Image

from nag import NegativeText
from tests.builders import tiny_images, tiny_pooled_text
from tests.builders import tiny_unet_parts as parts
from tests.builders.tiny import TEXT_DIM, shared
from tests.nag.variants import Pool, Variant, seeded

PX = tiny_images.LATENT_PX
LENGTH, NEGATIVE_LENGTH = 6, 4


def texts(width: int = TEXT_DIM) -> Pool:
    return {
        "prompt_embeds": seeded(1, 1, LENGTH, width),
        "negative_prompt_embeds": seeded(4, 1, LENGTH, width),
        "pooled_prompt_embeds": seeded(5, 1, TEXT_DIM),
        "negative_pooled_prompt_embeds": seeded(6, 1, TEXT_DIM),
        "guidance_scale": 3.0,
    }


def negative(seed: int, width: int = TEXT_DIM) -> NegativeText:
    return NegativeText(seeded(seed, 1, NEGATIVE_LENGTH, width))


def to_pil_image(picture_CHW: torch.Tensor) -> Image.Image:
    return Image.fromarray((picture_CHW.permute(1, 2, 0) * 255).byte().numpy())


def masked_negative(seed: int) -> NegativeText:
    return replace(negative(seed), attention_mask=torch.ones(1, NEGATIVE_LENGTH))


def picture(seed: int, *, channels: int = 3, side: int = PX) -> torch.Tensor:
    return seeded(seed, 1, channels, side, side).sigmoid()


def frames(*seeds: int) -> list[Image.Image]:
    return [to_pil_image(picture(seed)[0]) for seed in seeds]


def arguments(width: int = TEXT_DIM) -> Pool:
    return {
        **texts(width),
        "original_image": picture(14),
        "height": PX,
        "width": PX,
        "image": picture(7),
        "mask_image": (picture(8, channels=1) > 0.5).float(),
        "control_image": picture(9),
        "num_frames": 2,
        "video": frames(10, 11),
        "conditioning_frames": frames(12, 13),
        "controlnet_frame_indices": [0, 1],
        "enforce_inference_steps": True,
        "depth_map": picture(13)[:, 0],
        "control_mode": 0,
    }


def stable_diffusion(**settings: Any) -> Pool:
    unet = tiny_images.unet(**settings)
    return {
        "vae": shared(tiny_images.image_vae),
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "requires_safety_checker": False,
        "pag_applied_layers": "mid",
    }


def with_control_net(pool: Pool, *, is_union: bool = False) -> Pool:
    return {"controlnet": parts.control_net(pool["unet"], is_union=is_union)}


def sdxl() -> Pool:
    return {
        "vae": shared(tiny_images.image_vae),
        "unet": tiny_images.sdxl_unet(),
        "scheduler": EulerDiscreteScheduler(),
        "pag_applied_layers": "mid",
    }


def _variant(name: str, **others: Any) -> Variant:
    usual: dict[str, Any] = {"arguments": arguments, "negative": negative}
    return Variant(name, **{**usual, **others})


def _of_sd(name: str, **others: Any) -> Variant:
    more = {"changes": with_control_net} if "ControlNet" in name else {}
    return _variant(name, **{"parts": stable_diffusion, **more, **others})


def _of_sdxl(name: str, **others: Any) -> Variant:
    changes = partial(with_control_net, is_union="Union" in name)
    more = {"changes": changes} if "ControlNet" in name else {}
    return _variant(name, **{"parts": sdxl, **more, **others})


def _of_animations(name: str, **others: Any) -> Variant:
    def changes(pool: Pool) -> Pool:
        more = with_control_net(pool) if "ControlNet" in name else {}
        return {"motion_adapter": parts.motion_adapter(), **more}

    return _variant(name, **{"parts": stable_diffusion, "changes": changes, **others})


def _kolors() -> Pool:
    return {**sdxl(), "unet": tiny_images.sdxl_unet(encoder_hid_dim=24)}


def kandinsky3() -> Pool:
    return {
        "unet": tiny_pooled_text.kandinsky3_unet(),
        "scheduler": DDPMScheduler(clip_sample=False),
        "movq": shared(parts.movq),
    }


def deepfloyd(in_channels: int = 3) -> Pool:
    noise = {"class_embed_type": "timestep"} if in_channels > 3 else {}
    return {
        "unet": tiny_pooled_text.deepfloyd_unet(in_channels=in_channels, **noise),
        "scheduler": DDPMScheduler(variance_type="learned_range", clip_sample=False),
        "image_noising_scheduler": DDPMScheduler(),
        "requires_safety_checker": False,
    }


SD = tuple(
    f"StableDiffusion{one}Pipeline"
    for one in (
        "Img2Img",
        "Inpaint",
        "ControlNet",
        "ControlNetImg2Img",
        "ControlNetInpaint",
        "PAG",
        "PAGImg2Img",
        "PAGInpaint",
        "ControlNetPAG",
        "ControlNetPAGInpaint",
    )
)
SDXL = tuple(
    f"StableDiffusionXL{one}Pipeline"
    for one in (
        "Img2Img",
        "Inpaint",
        "ControlNetImg2Img",
        "ControlNetInpaint",
        "PAGImg2Img",
        "PAGInpaint",
        "ControlNetPAG",
        "ControlNetPAGImg2Img",
        "ControlNetUnion",
        "ControlNetUnionImg2Img",
        "ControlNetUnionInpaint",
    )
)
ROWS = (
    *map(_of_sd, SD),
    *map(_of_sdxl, SDXL),
    _of_sd("StableDiffusionAdapterPipeline", changes=lambda _pool: parts.t2i_adapter()),
    _of_sdxl(
        "StableDiffusionXLAdapterPipeline",
        changes=lambda _pool: parts.t2i_adapter(2, adapter_type="full_adapter_xl"),
    ),
    _of_sd(
        "StableDiffusionDepth2ImgPipeline",
        parts=partial(stable_diffusion, in_channels=5),
    ),
    _of_sd(
        "LatentConsistencyModelImg2ImgPipeline",
        parts=partial(stable_diffusion, time_cond_proj_dim=8),
        changes=lambda _pool: {"scheduler": LCMScheduler()},
    ),
    _of_sd(
        "StableUnCLIPImg2ImgPipeline",
        parts=partial(
            stable_diffusion,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * TEXT_DIM,
        ),
        changes=lambda _pool: {
            "image_normalizer": StableUnCLIPImageNormalizer(TEXT_DIM),
            "image_noising_scheduler": DDPMScheduler(),
            "image_encoder": shared(tiny_images.clip_text_encoder),  # its type of numbers alone
        },
        further={"image": None, "image_embeds": seeded(16, 1, TEXT_DIM)},
    ),
    *(
        _of_sdxl(
            f"Kolors{one}Pipeline",
            parts=_kolors,
            arguments=partial(arguments, 24),
            negative=partial(negative, width=24),
        )
        for one in ("", "PAG")  # from images it takes no embeddings
    ),
    Variant(
        "Kandinsky3Img2ImgPipeline",
        kandinsky3,
        arguments,
        masked_negative,
        further={
            "attention_mask": torch.ones(1, LENGTH),
            "negative_attention_mask": torch.ones(1, LENGTH),
        },
    ),
    *(
        Variant(
            f"IF{one}Pipeline",
            partial(deepfloyd, in_channels=channels),
            partial(arguments, 12),
            partial(negative, width=12),
            further={"output_type": "pt"},
        )
        for one, channels in {
            "Img2Img": 3,
            "Inpainting": 3,
            "SuperResolution": 6,
            "Img2ImgSuperResolution": 6,
            "InpaintingSuperResolution": 6,
        }.items()
    ),
    _of_animations("AnimateDiffControlNetPipeline"),
    _of_animations("AnimateDiffVideoToVideoPipeline"),
    _of_animations("AnimateDiffVideoToVideoControlNetPipeline"),
    _of_animations(
        "AnimateDiffPAGPipeline",
        changes=lambda _pool: {
            "motion_adapter": parts.motion_adapter(),
            "pag_applied_layers": "mid_block.*attn1",
        },
    ),
    _of_animations(
        "AnimateDiffSparseControlNetPipeline",
        changes=lambda _pool: {
            "motion_adapter": parts.motion_adapter(),
            "controlnet": parts.sparse_control_net(),
        },
    ),
    _of_animations("AnimateDiffSDXLPipeline", parts=sdxl),
)
