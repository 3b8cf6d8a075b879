"""The variants of the pipelines whose clips begin with images or videos, one row for each."""

from functools import partial

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
)
from diffusers.guiders import ClassifierFreeGuidance

from nag import NegativeText
from tests.builders import (
    tiny,
    tiny_image_inputs,
    tiny_joint,
    tiny_skyreels,
    tiny_text_transformers,
    tiny_wan_copies,
)
from tests.builders import tiny_joint_videos as tiny_videos
from tests.builders.tiny import shared
from tests.builders.tiny_joint import GLYPH_DIM
from tests.nag.transformer_variants import masked_negative, negative, parts_of
from tests.nag.variants import Pool, Variant, seeded
from tests.nag.video_variants import NUM_FRAMES, arguments, hunyuan_vae, kandinsky_arguments

NUM_GLYPHS = 3
LATENTS = 8  # channels of Wan's latents


def whole_clip(pool: Pool) -> torch.Tensor:
    """Return the frames as one tensor, (1, 3, frames, height, width) in 0..1."""
    return seeded(50, 1, 3, NUM_FRAMES, pool["height"], pool["width"]).sigmoid()


def with_frames(side: int = 64) -> Pool:
    """Return arguments of images and of clips under the names of all pipelines here."""
    found = arguments(side)
    movie = found["video"]
    return {
        **found,
        "image": movie[0],
        "controls": movie,
        "control_video": movie,
        "pose_video": movie,
        "face_video": [one.resize((16, 16)) for one in movie],
        "segment_frame_length": NUM_FRAMES,
        "num_frames_per_chunk": NUM_FRAMES,
        "overlap_history": 1,
    }


# --- joint attention


def cogvideox(in_channels: int) -> Pool:
    stock = tiny_joint.cogvideox_pipeline(in_channels)
    return {**stock.components, "vae": shared(cogvideox_vae)}


def cogvideox_vae() -> AutoencoderKLCogVideoX:
    torch.manual_seed(2)
    return AutoencoderKLCogVideoX(**tiny_videos.OF_VAE).eval()


def hunyuan(condition: str) -> Pool:
    """Return the parts of the first version, or of the one whose first frame is the image."""
    channels = 4 + 4 + 1 if condition == "latent_concat" else 4
    changes: Pool = {"in_channels": channels, "image_condition_type": condition}
    return parts_of(tiny_joint.hunyuan_video_pipeline, hunyuan_vae, **changes)


def pooled_negative(seed: int) -> NegativeText:
    found = masked_negative(seed)
    pooled = seeded(seed + 20, 1, tiny_joint.POOLED_DIM)
    return NegativeText(found.embeds, found.attention_mask, pooled=pooled)


def glyphs(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return seeded(seed, 1, NUM_GLYPHS, GLYPH_DIM), torch.ones(1, NUM_GLYPHS)


def hunyuan15() -> Pool:
    return {
        **tiny_joint.hunyuan_video15_pipeline().components,
        "guider": ClassifierFreeGuidance(guidance_scale=3.0),
        "image_encoder": shared(tiny_image_inputs.siglip),
        "feature_extractor": tiny_image_inputs.ToImagePx(),
    }


def hunyuan15_arguments() -> Pool:
    found = with_frames()
    for seed, prefix in ((61, ""), (62, "negative_")):
        embeds, mask = glyphs(seed)
        found[f"{prefix}prompt_embeds_2"] = embeds
        found[f"{prefix}prompt_embeds_mask_2"] = mask
    return found


def hunyuan15_negative(seed: int) -> NegativeText:
    found = masked_negative(seed)
    embeds, mask = glyphs(seed + 63)
    return NegativeText(found.embeds, found.attention_mask, glyph_embeds=embeds, glyph_mask=mask)


def motif() -> Pool:
    return {
        **tiny_videos.motif_video_pipeline().components,
        "guider": ClassifierFreeGuidance(guidance_scale=3.0),
        "text_encoder": tiny_image_inputs.TextAndImageEncoder(),
        "feature_extractor": tiny_image_inputs.ToImagePx(),
    }


def _of_easyanimate(name: str) -> Variant:
    def given() -> Pool:
        found = with_frames()
        clip = whole_clip(found)
        mask = (clip[:, :1] > 0.5).float() * 255
        return {**found, "control_video": clip, "video": clip, "mask_video": mask}

    def parts() -> Pool:
        changes: Pool = {"in_channels": 3 * 4, "resize_inpaint_mask_directly": False}
        return tiny_videos.easyanimate_pipeline(**changes).components

    return Variant(name, parts, given, negative)


# --- cross-attention


def kandinsky() -> Pool:
    stock = tiny_text_transformers.kandinsky_pipeline(has_image=True)
    return {**stock.components, "vae": shared(hunyuan_vae)}


def wan_animate() -> Pool:
    stock = tiny.wan_image_to_video_pipeline().components
    return {**stock, "transformer": tiny_wan_copies.wan_animate_transformer()}


def skyreels() -> Pool:
    return tiny_skyreels.diffusion_forcing().components


ROWS = (
    Variant("CogVideoXImageToVideoPipeline", partial(cogvideox, 8), with_frames, negative),
    Variant("CogVideoXVideoToVideoPipeline", partial(cogvideox, 4), with_frames, negative),
    Variant("CogVideoXFunControlPipeline", partial(cogvideox, 8), with_frames, negative),
    *(
        Variant(
            "HunyuanVideoImageToVideoPipeline",
            partial(hunyuan, condition),
            partial(with_frames, 32),
            pooled_negative,
            note=condition,
        )
        for condition in ("latent_concat", "token_replace")
    ),
    Variant(
        "HunyuanVideo15ImageToVideoPipeline",
        hunyuan15,
        hunyuan15_arguments,
        hunyuan15_negative,
    ),
    Variant(
        "WanAnimatePipeline",
        wan_animate,
        partial(with_frames, 32),
        negative,
        further={  # the only length with which the plain model finds its image tokens
            "prompt_embeds": seeded(1, 1, 512, tiny.TEXT_DIM),
            "negative_prompt_embeds": seeded(4, 1, 512, tiny.TEXT_DIM),
        },
    ),
    Variant(
        "Kandinsky5I2VPipeline",
        kandinsky,
        kandinsky_arguments,
        negative,
        prompt="prompt_embeds_qwen",
        further={"num_frames": 17},  # the first four frames are made like the others
    ),
    Variant(
        "MotifVideoImage2VideoPipeline",
        motif,
        partial(with_frames, 32),
        masked_negative,
        further={"prompt": None},
    ),
    _of_easyanimate("EasyAnimateControlPipeline"),
    _of_easyanimate("EasyAnimateInpaintPipeline"),
    Variant(
        "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
        skyreels,
        partial(with_frames, 32),
        negative,
        further={"num_frames": 9, "prompt": None},
    ),
)
