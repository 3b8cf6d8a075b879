"""Models of 2026 with text cross-attentions, of real classes at tiny size, random weights.

They are called with embeddings and return latents.
"""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AudioLDM2Pipeline,
    AudioLDM2UNet2DConditionModel,
    DDIMScheduler,
    DreamLiteMobilePipeline,
    DreamLitePipeline,
    DreamLiteUNetModel,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky6TI2VAPipeline,
    Kandinsky6Transformer3DModel,
    StableAudio3DiTModel,
    StableAudio3Pipeline,
)
from diffusers.pipelines.stable_audio_3 import StableAudio3DurationEmbedder

from tests.builders.tiny import TEXT_DIM, shared, text_encoder
from tests.builders.tiny_images import clip_text_encoder


class SoundCodec:
    """Stands for the autoencoder of Stable Audio 3."""

    downsampling_ratio = 2
    config = SimpleNamespace(sampling_rate=8, latent_dim=4)


class Vocoder:
    """Stands for a vocoder, whose sizes alone a pipeline reads before it has latents."""

    config = SimpleNamespace(upsample_rates=[1], sampling_rate=64, model_in_dim=64)


def audioldm2_pipeline() -> Any:
    """Build AudioLDM 2, with one attention to the sound and two to texts in each place."""
    torch.manual_seed(0)
    widths = [None, TEXT_DIM, TEXT_DIM]
    config: dict[str, Any] = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": [widths, widths],
        "attention_head_dim": 2,
    }
    kind: Any = AudioLDM2Pipeline
    names = ("vae", "text_encoder", "projection_model")
    pipeline = kind(
        **dict.fromkeys((*names, "tokenizer", "tokenizer_2", "feature_extractor")),
        text_encoder_2=shared(text_encoder),  # the types of their numbers alone
        language_model=shared(clip_text_encoder),
        unet=AudioLDM2UNet2DConditionModel(**config).eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        vocoder=Vocoder(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def stable_audio3_pipeline(*, is_differential: bool = True) -> Any:
    torch.manual_seed(0)
    transformer = StableAudio3DiTModel(
        io_channels=4,
        embed_dim=24,
        depth=2,
        num_heads=2,
        cond_token_dim=TEXT_DIM,
        global_cond_dim=TEXT_DIM,
        local_add_cond_dim=5,
        timestep_features_dim=8,
        ff_mult=2.0,
        num_memory_tokens=2,
        use_differential_attention=is_differential,
    )
    torch.nn.init.normal_(transformer.prompt_padding_embedding)
    kind: Any = StableAudio3Pipeline
    pipeline = kind(
        vae=SoundCodec(),
        text_encoder=None,
        tokenizer=None,
        duration_embedder=StableAudio3DurationEmbedder(TEXT_DIM, 8).eval(),
        transformer=transformer.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def texts_of_words(prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return embeddings of some texts and their mask: another length for each."""
    embeds = [
        torch.randn(6, TEXT_DIM, generator=torch.Generator().manual_seed(len(one)))
        for one in prompts
    ]
    lengths = torch.tensor([3 + len(one) % 4 for one in prompts])
    return torch.stack(embeds), (torch.arange(6)[None] < lengths[:, None]).long()


def _encode(_pipeline: Any, mode: str, prompts: list[str], **_others: Any) -> Any:
    del mode
    return texts_of_words(prompts)


class TypedEncoder:
    """Stands for DreamLite's encoder of texts and images."""

    dtype = torch.float32


class TinyDreamLite(DreamLitePipeline):
    encode_prompt: Any = _encode  # in place of an encoder of texts and images


class TinyDreamLiteMobile(DreamLiteMobilePipeline):
    encode_prompt: Any = _encode


class ImageCodec:
    """Stands for DreamLite's autoencoder: images of 4 channels are latents."""

    config = SimpleNamespace(
        latent_channels=4, encoder_block_out_channels=(8,), scaling_factor=1.0, shift_factor=0.0
    )


def dreamlite_pipeline(kind: Any = TinyDreamLite) -> Any:
    """Build DreamLite, whose keys and values have one head for the two of its queries.

    Without an embedding of sizes, which the pipeline makes for one image alone.
    """
    torch.manual_seed(0)
    unet = DreamLiteUNetModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT_DIM,
        attention_head_dim=2,
    )
    pipeline = kind(
        text_encoder=TypedEncoder(),
        tokenizer=None,
        processor=None,
        vae=ImageCodec(),
        unet=unet.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class TinyKandinsky6(Kandinsky6TI2VAPipeline):
    """Kandinsky 6 with embeddings of its words, all without filler and so without a mask."""

    @staticmethod
    def _get_prompt_embeds(prompt: list[str], *_args: Any, **_kwargs: Any) -> Any:
        embeds, _ = texts_of_words(prompt)
        return embeds, embeds.mean(dim=1), None


class MaskedTinyKandinsky6(TinyKandinsky6):
    """The same with filler, and its mask."""

    @staticmethod
    def _get_prompt_embeds(prompt: list[str], *_args: Any, **_kwargs: Any) -> Any:
        embeds, mask = texts_of_words(prompt)
        return embeds, embeds.mean(dim=1), mask.bool()


class Kandinsky6Sound:
    """Stands for the autoencoder of Kandinsky 6's sound: 24 tokens a second."""

    latent_hop_length = 1
    config = SimpleNamespace(sample_rate=24)


def kandinsky6_pipeline(kind: Any = MaskedTinyKandinsky6) -> Any:
    torch.manual_seed(0)
    transformer = Kandinsky6Transformer3DModel(
        in_visual_dim=4,
        out_visual_dim=4,
        in_text_dim=TEXT_DIM,
        in_text_dim2=TEXT_DIM,
        time_dim=16,
        model_dim=16,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 2, 2),
        in_audio_dim=3,
        out_audio_dim=3,
        ca_rope=True,
        cross_gates=True,
        fix_modulation=True,
    )
    pipeline = kind(
        transformer=transformer.eval(),
        vae=None,
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        audio_vae=Kandinsky6Sound(),
        vocoder=Kandinsky6Sound(),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
