"""The variants of the pipelines that change images, one row for each."""

from functools import partial
from typing import Any

from diffusers import DDPMScheduler, SCMScheduler
from diffusers.guiders import ClassifierFreeGuidance
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from PIL import Image

from tests.builders import (
    tiny_image_inputs,
    tiny_images,
    tiny_joint,
    tiny_text_transformers,
)
from tests.builders.tiny import TEXT_DIM, shared
from tests.nag import unet_variants, video_variants
from tests.nag.transformer_variants import (
    arguments,
    masked_negative,
    negative,
    of_z_image,
    parts_of,
    qwen_vae,
)
from tests.nag.unet_variants import PX, frames
from tests.nag.variants import Pool, Variant, seeded

KOLORS_DIM = 24


def pictures(side: int = PX) -> list[Image.Image]:
    return [one.resize((side, side)) for one in frames(40, 41)]


def _of_qwen_edit(name: str, **others: Any) -> Variant:
    """Return the row of a pipeline that scales its images to a million pixels unless patched."""
    parts = partial(parts_of, tiny_joint.qwen_image_pipeline, qwen_vae)
    given: Pool = {"image": pictures()[0]}
    further = {**given, **others.pop("further", {})}
    return Variant(name, parts, arguments, masked_negative, further=further, **others)


def sized(module: str, *more: None) -> Pool:
    name = f"pipelines.qwenimage.pipeline_qwenimage_{module}.calculate_dimensions"
    return {name: lambda _area, _ratio: (PX, PX, *more)}


def layered(_pool: Pool) -> Pool:
    """Return a transformer that knows its layers, and an autoencoder of images with alpha."""
    changes = {"use_additional_t_cond": True, "use_layer3d_rope": True}
    return {
        "transformer": tiny_joint.qwen_image_transformer(**changes),
        "vae": shared(qwen_vae, 4),
        "text_encoder": shared(tiny_images.clip_text_encoder),  # its type of numbers alone
    }


def kolors() -> Pool:
    unet = tiny_images.sdxl_unet(
        encoder_hid_dim=KOLORS_DIM,
        projection_class_embeddings_input_dim=6 * 4 + KOLORS_DIM,
    )
    return {
        **unet_variants.sdxl(),
        "unet": unet,
        "tokenizer": tiny_image_inputs.ChatTokenizer(),
        "text_encoder": tiny_image_inputs.ChatEncoder(KOLORS_DIM),
    }


def unclip() -> Pool:
    of_embeddings: Pool = {
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 2 * TEXT_DIM,
    }
    return {
        **unet_variants.stable_diffusion(**of_embeddings),
        **tiny_image_inputs.unclip_prior(),
        "image_normalizer": StableUnCLIPImageNormalizer(TEXT_DIM),
        "image_noising_scheduler": DDPMScheduler(),
    }


def negative_words(seed: int) -> str:
    return "mud" if seed == 2 else "snow and ice"


def sana(_pool: Pool) -> Pool:
    return {"vae": shared(tiny_image_inputs.sana_vae)}


def sana_control(pool: Pool) -> Pool:
    net = tiny_image_inputs.sana_control_net(pool["transformer"])
    return {**sana(pool), "controlnet": net}


def refiner() -> Pool:
    return {
        **tiny_joint.hunyuan_image_pipeline().components,
        "transformer": tiny_joint.hunyuan_image_transformer(
            in_channels=8,
            text_embed_2_dim=None,
            guidance_embeds=True,
            patch_size=(1, 1, 1),
            rope_axes_dim=(4, 4, 4),
        ),
        "guider": ClassifierFreeGuidance(guidance_scale=3.0),
    }


def kandinsky_image() -> Pool:
    parts = tiny_text_transformers.kandinsky_pipeline(has_image=True).components
    return {**parts, "vae": shared(tiny_joint.autoencoder)}


def z_image_control(pool: Pool) -> Pool:
    """Return a net that sees the control, the mask and the masked image."""
    return video_variants.z_image_control(pool, in_channels=4 + 1 + 4)


ROWS = (
    _of_qwen_edit(
        "QwenImageEditPlusPipeline",
        patches=sized("edit_plus"),
        further={"image": pictures()},
    ),
    _of_qwen_edit("QwenImageEditPipeline", patches=sized("edit", None)),
    _of_qwen_edit("QwenImageEditInpaintPipeline", patches=sized("edit_inpaint", None)),
    _of_qwen_edit(
        "QwenImageLayeredPipeline",
        patches=sized("layered"),
        changes=layered,
        further={
            "image": pictures()[0].convert("RGBA"),
            "prompt": "a red cat",
            "layers": 2,
            "output_type": "pt",  # it returns no latents
        },
    ),
    Variant(
        "KolorsImg2ImgPipeline",  # it takes no embeddings: it loses the pooled text beside them
        kolors,
        unet_variants.arguments,
        negative_words,
        takes_words=True,
    ),
    Variant(
        "StableUnCLIPPipeline",
        unclip,
        unet_variants.arguments,
        negative_words,
        further={"prior_num_inference_steps": 2},
        takes_words=True,
    ),
    Variant(
        "SanaControlNetPipeline",
        lambda: tiny_text_transformers.sana_pipeline().components,
        partial(arguments, 32),
        masked_negative,
        changes=sana_control,
    ),
    Variant(
        "SanaSprintImg2ImgPipeline",
        lambda: tiny_text_transformers.sana_sprint_pipeline().components,
        partial(arguments, 32),
        masked_negative,
        changes=lambda pool: {**sana(pool), "scheduler": SCMScheduler()},
    ),
    Variant(
        "HunyuanImageRefinerPipeline",
        refiner,
        partial(arguments, 64),
        masked_negative,
        further={"image": seeded(7, 1, 4, 1, 4, 4)},
    ),
    Variant(
        "Kandinsky5I2IPipeline",
        kandinsky_image,
        video_variants.kandinsky_arguments,
        negative,
        prompt="prompt_embeds_qwen",
        attributes={"resolutions": [(64, 64)]},
    ),
    of_z_image("ZImageControlNetInpaintPipeline", z_image_control),
)
