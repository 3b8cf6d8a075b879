"""Pipelines of models with joint attention of text and image, at tiny size, with random weights.

They have no encoders: texts come as embeddings, and pictures as latents. `with_encoders` gives them
what makes their texts.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLHunyuanVideo15,
    CogVideoXDDIMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HunyuanImagePipeline,
    HunyuanImageTransformer2DModel,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3PAGPipeline,
    StableDiffusion3Pipeline,
)
from diffusers.guiders import ClassifierFreeGuidance
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
)

from tests.builders import tiny

TEXT_DIM = tiny.TEXT_DIM
POOLED_DIM = 12
GLYPH_DIM = 10
CLIP_LENGTH = 20
HEADS = {"num_attention_heads": 2, "attention_head_dim": 12}


def finished(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def randomized(model: Any) -> Any:
    """Give the weights noise: in fresh layers of modulation, gates and biases are all but zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.2 * noise)
    return model.eval()


def sd3_transformer(**changes: Any) -> SD3Transformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "sample_size": 8,
        "patch_size": 2,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "joint_attention_dim": TEXT_DIM,
        "caption_projection_dim": 24,
        "pooled_projection_dim": POOLED_DIM,
        "pos_embed_max_size": 8,
        "dual_attention_layers": (0,),
        "qk_norm": "rms_norm",
        **HEADS,
    }
    return randomized(SD3Transformer2DModel(**{**config, **changes}))


def sd3_pipeline(kind: Any = StableDiffusion3Pipeline, **settings: Any) -> Any:
    empty: Any = None
    parts = dict.fromkeys(
        ("vae", "text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2")
    )
    return finished(
        kind(
            transformer=sd3_transformer(),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            tokenizer_3=empty,
            **parts,
            **settings,
        )
    )


def sd3_pag_pipeline() -> Any:
    return sd3_pipeline(StableDiffusion3PAGPipeline, pag_applied_layers="blocks.1")


def flux_transformer(**changes: Any) -> FluxTransformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 16,
        "num_layers": 2,
        "num_single_layers": 2,
        "joint_attention_dim": TEXT_DIM,
        "pooled_projection_dim": POOLED_DIM,
        "guidance_embeds": True,
        "axes_dims_rope": (4, 4, 4),
        **HEADS,
    }
    return randomized(FluxTransformer2DModel(**{**config, **changes}))


def flux_pipeline(pipeline_class: Any = FluxPipeline, vae: Any = None, **changes: Any) -> Any:
    empty: Any = None
    parts: dict[str, Any] = {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": vae,
        "text_encoder": empty,
        "tokenizer": empty,
        "text_encoder_2": empty,
        "tokenizer_2": empty,
        "transformer": flux_transformer(**changes),
    }
    return finished(pipeline_class(**parts))


def qwen_image_transformer(**changes: Any) -> QwenImageTransformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 16,
        "out_channels": 4,
        "num_layers": 2,
        "joint_attention_dim": TEXT_DIM,
        "axes_dims_rope": (4, 4, 4),
        **HEADS,
    }
    return randomized(QwenImageTransformer2DModel(**{**config, **changes}))


def qwen_image_pipeline() -> Any:
    empty: Any = None
    return finished(
        QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=empty,
            text_encoder=empty,
            tokenizer=empty,
            transformer=qwen_image_transformer(),
        )
    )


def hunyuan_video_transformer(**changes: Any) -> HunyuanVideoTransformer3DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_DIM,
        "pooled_projection_dim": POOLED_DIM,
        "rope_axes_dim": (4, 4, 4),
        **HEADS,
    }
    return randomized(HunyuanVideoTransformer3DModel(**{**config, **changes}))


def hunyuan_video_pipeline(**changes: Any) -> Any:
    empty: Any = None
    parts: dict[str, Any] = {
        "text_encoder": empty,
        "tokenizer": empty,
        "transformer": hunyuan_video_transformer(**changes),
        "vae": empty,
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder_2": empty,
        "tokenizer_2": empty,
    }
    return finished(HunyuanVideoPipeline(**parts))


def hunyuan_image_transformer(**changes: Any) -> HunyuanImageTransformer2DModel:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 2,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_DIM,
        "text_embed_2_dim": GLYPH_DIM,
        "rope_axes_dim": (6, 6),
        **HEADS,
    }
    return randomized(HunyuanImageTransformer2DModel(**{**config, **changes}))


def hunyuan_image_pipeline(**changes: Any) -> Any:
    empty: Any = None
    parts: dict[str, Any] = {
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "vae": empty,
        "text_encoder": empty,
        "tokenizer": empty,
        "text_encoder_2": empty,
        "tokenizer_2": empty,
        "transformer": hunyuan_image_transformer(**changes),
        "guider": ClassifierFreeGuidance(guidance_scale=1.0),
    }
    return finished(HunyuanImagePipeline(**parts))


def hunyuan_video15_pipeline() -> Any:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 9,
        "out_channels": 4,
        "num_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_DIM,
        "text_embed_2_dim": GLYPH_DIM,
        "image_embed_dim": 8,
        "rope_axes_dim": (4, 4, 4),
        "target_size": 64,
        **HEADS,
    }
    of_vae: dict[str, Any] = {
        "latent_channels": 4,
        "block_out_channels": (16, 16, 16, 16, 16),
        "layers_per_block": 1,
    }
    empty: Any = None
    parts: dict[str, Any] = {
        "text_encoder": empty,
        "tokenizer": empty,
        "transformer": randomized(HunyuanVideo15Transformer3DModel(**config)),
        "vae": AutoencoderKLHunyuanVideo15(**of_vae),  # the pipeline reads its sizes
        "scheduler": FlowMatchEulerDiscreteScheduler(),
        "text_encoder_2": empty,
        "tokenizer_2": empty,
        "guider": ClassifierFreeGuidance(guidance_scale=1.0),
    }
    return finished(HunyuanVideo15Pipeline(**parts))


def cogvideox_pipeline(in_channels: int = 4) -> Any:
    torch.manual_seed(0)
    transformer = CogVideoXTransformer3DModel(
        in_channels=in_channels,
        out_channels=4,
        num_layers=2,
        text_embed_dim=TEXT_DIM,
        time_embed_dim=8,
        max_text_seq_length=7,
        sample_width=8,
        sample_height=8,
        sample_frames=5,
        use_rotary_positional_embeddings=True,
        num_attention_heads=2,
        attention_head_dim=16,
    )
    empty: Any = None
    return finished(
        CogVideoXPipeline(
            tokenizer=empty,
            text_encoder=empty,
            vae=empty,
            transformer=randomized(transformer),
            scheduler=CogVideoXDDIMScheduler(),
        )
    )


def autoencoder(**changes: Any) -> AutoencoderKL:
    torch.manual_seed(2)
    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (4,) * 4,
        "norm_num_groups": 2,
        "shift_factor": 0.1,
    }
    return AutoencoderKL(**{**config, **changes}).eval()


def with_encoders(pipeline: Any) -> Any:
    """Give a pipeline of SD3 or Flux the encoders and tokenizers that make its texts."""
    tokens = [*tiny.LETTERS, *(f"{letter}</w>" for letter in tiny.LETTERS)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    end = vocabulary["<|endoftext|>"]
    of_clip = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=CLIP_LENGTH)
    is_flux = isinstance(pipeline, FluxPipeline)
    torch.manual_seed(4)
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=POOLED_DIM if is_flux else TEXT_DIM // 2,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CLIP_LENGTH,
        projection_dim=POOLED_DIM // 2,
        eos_token_id=end,
        bos_token_id=end - 1,
        pad_token_id=end,
    )
    t5 = tiny.text_encoder(T5Config, T5EncoderModel)
    if is_flux:
        parts = {
            "text_encoder": CLIPTextModel(config).eval(),
            "tokenizer": of_clip,
            "text_encoder_2": t5,
            "tokenizer_2": tiny.tokenizer(),
        }
    else:
        parts = {
            "text_encoder": CLIPTextModelWithProjection(config).eval(),
            "text_encoder_2": CLIPTextModelWithProjection(config).eval(),
            "tokenizer": of_clip,
            "tokenizer_2": of_clip,
            "text_encoder_3": t5,
            "tokenizer_3": tiny.tokenizer(),
        }
    pipeline.register_modules(**parts)
    pipeline.tokenizer_max_length = CLIP_LENGTH
    return pipeline
