"""LTX-2 of real classes at tiny size, with random weights: video and sound from one text.

Each part has the proportions of the real one: a video latent for each 8 frames, 25 audio latents a
second, a vocoder of 160 samples for each frame of the mel spectrogram.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2.connectors import LTX2TextConnectors
from diffusers.pipelines.ltx2.vocoder import LTX2Vocoder, LTX2VocoderWithBWE
from tokenizers.processors import TemplateProcessing
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GemmaTokenizer,
    SiglipVisionConfig,
)

from tests.builders.tiny import LETTERS, shared

TEXT_WIDTH = 16
TEXT_LAYERS = 2
VIDEO_CHANNELS, AUDIO_CHANNELS, MEL_BINS = 8, 2, 8
NUM_REGISTERS = 8
MAX_TOKENS = 16  # a multiple of the registers
NUM_BLOCKS = 2


def tokenizer() -> GemmaTokenizer:
    """Build a tokenizer with a token for each letter, and one that begins each text."""
    special = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    vocabulary = {token: index for index, token in enumerate((*special, "▁", *LETTERS))}
    built = GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=1024)
    built.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    return built


def text_encoder() -> Gemma3ForConditionalGeneration:
    torch.manual_seed(1)
    text = Gemma3TextConfig(
        vocab_size=len(LETTERS) + 8,
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=TEXT_LAYERS,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        sliding_window=64,
        bos_token_id=2,
    )
    vision = SiglipVisionConfig(
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        image_size=8,
        patch_size=8,
    )
    config = Gemma3Config(
        text_config=text,
        vision_config=vision,
        mm_tokens_per_image=1,
        image_token_index=len(LETTERS) + 5,
        boi_token_index=len(LETTERS) + 6,
        eoi_token_index=len(LETTERS) + 7,
    )
    return Gemma3ForConditionalGeneration(config).eval()


def connectors(*, is_23: bool = False) -> LTX2TextConnectors:
    torch.manual_seed(3)
    return LTX2TextConnectors(
        caption_channels=TEXT_WIDTH,
        text_proj_in_factor=TEXT_LAYERS + 1,
        video_connector_num_attention_heads=2,
        video_connector_attention_head_dim=12 if is_23 else 8,
        video_connector_num_layers=1,
        video_connector_num_learnable_registers=NUM_REGISTERS,
        video_gated_attn=is_23,
        audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8,
        audio_connector_num_layers=1,
        audio_connector_num_learnable_registers=NUM_REGISTERS,
        audio_gated_attn=is_23,
        connector_rope_base_seq_len=32,
        rope_type="split",
        per_modality_projections=is_23,
        video_hidden_dim=24,
        audio_hidden_dim=16,
        proj_bias=is_23,
    ).eval()


def transformer(seed: int = 0, *, is_23: bool = False) -> LTX2VideoTransformer3DModel:
    """Build the transformer of LTX-2, or that of 2.3: gates, modulated text, no projection of it.

    All gates have random weights, so that they differ between heads.
    """
    torch.manual_seed(seed)
    return LTX2VideoTransformer3DModel(
        in_channels=VIDEO_CHANNELS,
        out_channels=VIDEO_CHANNELS,
        num_attention_heads=2,
        attention_head_dim=12,
        cross_attention_dim=24,
        vae_scale_factors=(8, 32, 32),
        gated_attn=is_23,
        cross_attn_mod=is_23,
        audio_in_channels=AUDIO_CHANNELS * MEL_BINS // 4,
        audio_out_channels=AUDIO_CHANNELS * MEL_BINS // 4,
        audio_num_attention_heads=2,
        audio_attention_head_dim=8,
        audio_cross_attention_dim=16,
        audio_gated_attn=is_23,
        audio_cross_attn_mod=is_23,
        num_layers=NUM_BLOCKS,
        caption_channels=TEXT_WIDTH,
        rope_double_precision=False,
        rope_type="split",
        use_prompt_embeddings=not is_23,
        perturbed_attn=is_23,
    ).eval()


def video_vae() -> AutoencoderKLLTX2Video:
    torch.manual_seed(2)
    vae = AutoencoderKLLTX2Video(
        latent_channels=VIDEO_CHANNELS,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        decoder_causal=False,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    vae.latents_mean.copy_(torch.linspace(-0.5, 0.5, VIDEO_CHANNELS))
    vae.latents_std.copy_(torch.linspace(0.5, 2.0, VIDEO_CHANNELS))
    return vae.eval()


def audio_vae() -> AutoencoderKLLTX2Audio:
    torch.manual_seed(4)
    vae: Any = AutoencoderKLLTX2Audio(
        base_channels=AUDIO_CHANNELS * MEL_BINS // 4,
        output_channels=2,
        ch_mult=(1, 1, 1),
        num_res_blocks=1,
        in_channels=2,
        resolution=16,
        latent_channels=AUDIO_CHANNELS,
        norm_type="pixel",
        causality_axis="height",
        sample_rate=16_000,
        mel_hop_length=160,
        mel_bins=MEL_BINS,
    )
    vae.latents_mean.copy_(torch.linspace(-0.2, 0.2, len(vae.latents_mean)))
    vae.latents_std.copy_(torch.linspace(0.5, 1.5, len(vae.latents_std)))
    return vae.eval()


def vocoder() -> LTX2Vocoder:
    torch.manual_seed(5)
    return LTX2Vocoder(
        in_channels=2 * MEL_BINS,
        hidden_channels=16,
        upsample_kernel_sizes=[16, 15, 8],
        upsample_factors=[8, 5, 4],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        output_sampling_rate=16_000,
    ).eval()


def vocoder_23() -> LTX2VocoderWithBWE:
    """Build LTX-2.3's vocoder, which ends with three times as many samples a second."""
    torch.manual_seed(5)
    return LTX2VocoderWithBWE(
        in_channels=2 * MEL_BINS,
        hidden_channels=16,
        upsample_kernel_sizes=[16, 15, 8],
        upsample_factors=[8, 5, 4],
        resnet_kernel_sizes=[3],
        resnet_dilations=[[1, 3, 5]],
        bwe_in_channels=2 * MEL_BINS,
        bwe_hidden_channels=8,
        bwe_upsample_kernel_sizes=[12, 16, 15],
        bwe_upsample_factors=[6, 8, 5],
        bwe_resnet_kernel_sizes=[3],
        bwe_resnet_dilations=[[1, 3, 5]],
        num_mel_channels=MEL_BINS,
    ).eval()


def parts(*, is_23: bool = False) -> dict[str, Any]:
    """Return the components of a pipeline; all but the transformer and scheduler are shared."""
    return {
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1),
        "vae": shared(video_vae),
        "audio_vae": shared(audio_vae),
        "text_encoder": shared(text_encoder),
        "tokenizer": shared(tokenizer),
        "connectors": connectors(is_23=is_23),
        "transformer": transformer(is_23=is_23),
        "vocoder": shared(vocoder_23 if is_23 else vocoder),
    }


def pipeline(*, is_23: bool = False) -> LTX2Pipeline:
    built = LTX2Pipeline(**parts(is_23=is_23))
    built.set_progress_bar_config(disable=True)
    return built


def image_to_video_pipeline() -> LTX2ImageToVideoPipeline:
    built = LTX2ImageToVideoPipeline(**parts())
    built.set_progress_bar_config(disable=True)
    return built
