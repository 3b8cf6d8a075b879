"""Pipelines of further models with joint attention, most of videos, at tiny size.

They have random weights and no text encoders; images come as tensors.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLMagvit,
    CogVideoXDDIMScheduler,
    ConsisIDTransformer3DModel,
    EasyAnimatePipeline,
    EasyAnimateTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoFramepackPipeline,
    HunyuanVideoFramepackTransformer3DModel,
    JoyImageEditPipeline,
    JoyImageEditPlusPipeline,
    JoyImageEditPlusTransformer3DModel,
    JoyImageEditTransformer3DModel,
    MotifVideoPipeline,
    MotifVideoTransformer3DModel,
)
from diffusers.guiders import ClassifierFreeGuidance

# Diffusers names it only where OpenCV is, which draws key points of a face.
from diffusers.pipelines.consisid.pipeline_consisid import ConsisIDPipeline

from tests.builders import tiny
from tests.builders.tiny_joint import HEADS, POOLED_DIM, TEXT_DIM, finished, randomized

OF_VAE: dict[str, Any] = {
    "latent_channels": 4,
    "block_out_channels": (4, 4, 4, 4),
    "layers_per_block": 1,
    "norm_num_groups": 2,
}


def _finished(pipeline_class: Any, **parts: Any) -> Any:
    torch.manual_seed(2)
    without = {"text_encoder": None, "tokenizer": None, "vae": None}
    scheduler = {"scheduler": FlowMatchEulerDiscreteScheduler()}
    return finished(pipeline_class(**{**without, **scheduler, **parts}))


def a_picture(rows: int) -> dict[str, Any]:
    """Return the first picture of each row's clip."""
    generator = torch.Generator().manual_seed(6)
    return {"image": torch.rand(rows, 3, 64, 64, generator=generator)}


def consisid_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = ConsisIDTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=8,
        out_channels=4,
        num_layers=2,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=8,
        max_text_seq_length=7,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        use_rotary_positional_embeddings=True,
        is_train_face=True,
        cross_attn_dim_head=4,
        cross_attn_num_heads=2,
        LFE_id_dim=6,
        LFE_vit_dim=8,
        LFE_depth=1,
        LFE_dim_head=4,
        LFE_num_heads=1,
        LFE_num_id_token=1,
        LFE_num_querie=2,
        LFE_output_dim=21,
        LFE_ff_mult=1,
        LFE_num_scale=1,
    )
    return _finished(
        ConsisIDPipeline,
        vae=AutoencoderKLCogVideoX(**OF_VAE).eval(),
        transformer=randomized(transformer),
        scheduler=CogVideoXDDIMScheduler(),
    )


def a_face(rows: int) -> dict[str, Any]:
    """Return a picture for each row, and one face for all."""
    generator = torch.Generator().manual_seed(7)
    of_face = {
        "id_cond": torch.randn(1, 6, generator=generator),
        "id_vit_hidden": [torch.randn(1, 3, 8, generator=generator)],
    }
    return a_picture(rows) | of_face


def easyanimate_pipeline(**changes: Any) -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "in_channels": 4,
        "out_channels": 4,
        "patch_size": 2,
        "sample_width": 8,
        "sample_height": 8,
        "num_layers": 2,
        "mmdit_layers": 1,
        "time_embed_dim": 8,
        "text_embed_dim": TEXT_DIM,
    }
    transformer = EasyAnimateTransformer3DModel(**{**config, **changes})
    vae = AutoencoderKLMagvit(**OF_VAE).eval()
    return _finished(EasyAnimatePipeline, vae=vae, transformer=randomized(transformer))


class FramepackOfEmbeddings(HunyuanVideoFramepackPipeline):
    """Takes the mean colours of an image in the place of what an encoder makes of it."""

    def encode_image(
        self, image: torch.Tensor, device: Any = None, dtype: Any = None
    ) -> torch.Tensor:
        return image.mean(dim=3)[:, :, :8]


def framepack_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_DIM,
        "pooled_projection_dim": POOLED_DIM,
        "rope_axes_dim": (4, 4, 4),
        "has_image_proj": True,
        "image_proj_dim": 8,
        "has_clean_x_embedder": True,
        **HEADS,
    }
    transformer = HunyuanVideoFramepackTransformer3DModel(**config)
    return _finished(
        FramepackOfEmbeddings,
        vae=AutoencoderKLHunyuanVideo(**OF_VAE, mid_block_add_attention=False).eval(),
        transformer=randomized(transformer),
        text_encoder_2=None,
        tokenizer_2=None,
        image_encoder=None,
        feature_extractor=None,
    )


def a_window(rows: int) -> dict[str, Any]:
    """Return a picture for each row, and one window of frames."""
    return a_picture(rows) | {"latent_window_size": 3, "num_frames": 9}


def motif_video_transformer(**changes: Any) -> MotifVideoTransformer3DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 17,
        "out_channels": 8,
        "num_layers": 1,
        "num_single_layers": 3,
        "num_decoder_layers": 1,
        "text_embed_dim": TEXT_DIM,
        "image_embed_dim": 8,
        "rope_axes_dim": (4, 4, 4),
        "enable_text_cross_attention_dual": True,
        "enable_text_cross_attention_single": True,
        **HEADS,
    }
    return randomized(MotifVideoTransformer3DModel(**{**config, **changes}))


def motif_video_pipeline() -> Any:
    return _finished(
        MotifVideoPipeline,
        vae=tiny.wan_vae(),
        transformer=motif_video_transformer(),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
        feature_extractor=None,
    )


JOYIMAGE: dict[str, Any] = {
    "in_channels": 4,
    "hidden_size": 24,
    "num_attention_heads": 2,
    "text_dim": TEXT_DIM,
    "num_layers": 2,
    "rope_dim_list": [4, 4, 4],
}


class AnySize:
    """Leaves the sizes of images as they are asked for."""

    def get_default_height_width(self, _image: Any, height: int, width: int) -> tuple[int, int]:
        return height, width


class SmallJoyImageEdit(JoyImageEditPipeline):
    """Makes images of any size; the stock pipeline makes large ones alone."""

    @property
    def vae_image_processor(self) -> Any:
        return AnySize()

    @vae_image_processor.setter
    def vae_image_processor(self, _processor: Any) -> None:
        """Do nothing: the sizes stay free."""


def joyimage_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = JoyImageEditTransformer3DModel(**JOYIMAGE)
    return _finished(SmallJoyImageEdit, transformer=randomized(transformer), processor=None)


class JoyImageEditOfEmbeddings(JoyImageEditPlusPipeline):
    """Takes embeddings beside a prompt; the stock one refuses both and fails without a prompt."""

    def check_inputs(self, *_: Any, **__: Any) -> None:
        """Do nothing: tests give what fits."""


def joyimage_plus_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = JoyImageEditPlusTransformer3DModel(**JOYIMAGE)
    return _finished(JoyImageEditOfEmbeddings, transformer=randomized(transformer), processor=None)


def a_prompt(rows: int) -> dict[str, Any]:
    return {"prompt": [""] * rows}
