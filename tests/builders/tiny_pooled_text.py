"""Models that pool their text for the time embedding, of real classes at tiny size.

Their pipelines have no autoencoder and return latents; they are called with embeddings.
"""

from typing import Any

import torch
from diffusers import (
    DDPMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanDiT2DModel,
    HunyuanDiTPipeline,
    IFPipeline,
    Kandinsky3Pipeline,
    Kandinsky3UNet,
    LongCatAudioDiTPipeline,
    LongCatAudioDiTTransformer,
    LuminaNextDiT2DModel,
    LuminaPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import AttnAddedKVProcessor

from tests.builders.tiny import TEXT_DIM, shared, text_encoder, tokenizer
from tests.builders.tiny_text_transformers import AudioCodec


def _with_random_zeros(model: Any) -> Any:
    """Fill the weights that are zero when new, so that nothing is switched off."""
    for weight in model.parameters():
        if not weight.any() or not torch.isfinite(weight).all():
            torch.nn.init.normal_(weight, std=0.2)
    return model.eval()


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def deepfloyd_unet(in_channels: int = 3, class_embed_type: str | None = None) -> Any:
    """Build the UNet of DeepFloyd IF, whose attentions to the text norm it over its tokens."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=6,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        class_embed_type=class_embed_type,
        encoder_hid_dim=12,
        encoder_hid_dim_type="text_proj",
    )
    return unet.eval()


def deepfloyd_pipeline() -> Any:
    kind: Any = IFPipeline
    pipeline = kind(
        tokenizer=None,
        text_encoder=None,
        unet=deepfloyd_unet(),
        scheduler=DDPMScheduler(variance_type="learned_range", clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    return _quiet(pipeline)


def plain_deepfloyd() -> Any:
    pipeline = deepfloyd_pipeline()
    pipeline.unet.set_attn_processor(AttnAddedKVProcessor())
    return pipeline


def kandinsky3_unet() -> Any:
    torch.manual_seed(0)
    unet = Kandinsky3UNet(
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=4,
        layers_per_block=2,
        block_out_channels=(8, 8),
        cross_attention_dim=16,
        encoder_hid_dim=TEXT_DIM,
    )
    return _with_random_zeros(unet)


def kandinsky3_pipeline() -> Any:
    kind: Any = Kandinsky3Pipeline
    return _quiet(
        kind(
            tokenizer=None,
            text_encoder=None,
            unet=kandinsky3_unet(),
            scheduler=DDPMScheduler(clip_sample=False),
            movq=None,
        )
    )


def lumina_pipeline() -> Any:
    """Build Lumina-Next, whose keys and values have half the heads of its queries."""
    torch.manual_seed(0)
    transformer = LuminaNextDiT2DModel(
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        cross_attention_dim=TEXT_DIM,
    )
    torch.nn.init.normal_(transformer.pad_token)  # its memory is not set when new
    kind: Any = LuminaPipeline
    return _quiet(
        kind(
            transformer=_with_random_zeros(transformer),
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=None,
            text_encoder=None,
            tokenizer=None,
        )
    )


def hunyuan_dit_pipeline(text_length: int, second_length: int, num_layers: int = 2) -> Any:
    """Build HunyuanDiT, whose two texts have one length each."""
    torch.manual_seed(0)
    transformer = HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=24,
        num_layers=num_layers,
        cross_attention_dim=TEXT_DIM,
        cross_attention_dim_t5=TEXT_DIM,
        pooled_projection_dim=8,
        text_len=text_length,
        text_len_t5=second_length,
    )
    kind: Any = HunyuanDiTPipeline
    parts = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor")
    )
    pipeline = kind(
        transformer=_with_random_zeros(transformer),
        scheduler=DDPMScheduler(clip_sample=False),
        requires_safety_checker=False,
        **parts,
    )
    return _quiet(pipeline)


def fused_hunyuan_dit(text_length: int, second_length: int) -> Any:
    pipeline = hunyuan_dit_pipeline(text_length, second_length)
    pipeline.transformer.fuse_qkv_projections()
    return pipeline


def longcat_audio_pipeline() -> Any:
    """Build LongCat's audio model, which passes its text through convolutions."""
    torch.manual_seed(0)
    transformer = LongCatAudioDiTTransformer(
        dit_dim=24, dit_depth=2, dit_heads=2, dit_text_dim=TEXT_DIM, latent_dim=8, ff_mult=2.0
    )
    kind: Any = LongCatAudioDiTPipeline
    return _quiet(
        kind(
            vae=AudioCodec(),
            text_encoder=shared(text_encoder),
            tokenizer=shared(tokenizer),
            transformer=_with_random_zeros(transformer),
        )
    )


def hunyuan_dit_with_encoders() -> Any:
    pipeline = hunyuan_dit_pipeline(77, 256)
    pipeline.register_modules(
        text_encoder=shared(text_encoder),
        tokenizer=shared(tokenizer),
        text_encoder_2=shared(text_encoder),
        tokenizer_2=shared(tokenizer),
    )
    return pipeline
