"""Transformers with separate text cross-attentions, of real classes at tiny size, random weights.

Their pipelines have no autoencoder and return latents; they are called with embeddings.
"""

from types import SimpleNamespace
from typing import Any

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    Cosmos2TextToImagePipeline,
    CosmosTransformer3DModel,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EDMDPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    Kandinsky5T2IPipeline,
    Kandinsky5Transformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaSprintPipeline,
    SanaTransformer2DModel,
    SanaVideoPipeline,
    SanaVideoTransformer3DModel,
    SCMScheduler,
    StableAudioDiTModel,
    StableAudioPipeline,
    StableAudioProjectionModel,
)
from diffusers.models.attention_processor import AttnProcessor

from tests.builders.tiny import TEXT_DIM, text_encoder, tokenizer

HEADS, HEAD_DIM = 2, 12
WIDTH = HEADS * HEAD_DIM
SIZES: dict[str, Any] = {
    "num_attention_heads": HEADS,
    "attention_head_dim": HEAD_DIM,
    "num_layers": 2,
    "cross_attention_dim": WIDTH,
    "caption_channels": TEXT_DIM,
}


def _pipeline(kind: Any, transformer: Any, scheduler: Any, **parts: Any) -> Any:
    parts = {"tokenizer": None, "text_encoder": None, "vae": None, **parts}
    pipeline = kind(transformer=transformer.eval(), scheduler=scheduler, **parts)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pixart_transformer() -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    return PixArtTransformer2DModel(
        in_channels=4, out_channels=8, sample_size=8, norm_num_groups=4, **SIZES
    )


def pixart_pipeline(kind: Any = PixArtSigmaPipeline, **parts: Any) -> Any:
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    return _pipeline(kind, pixart_transformer(), scheduler, **parts)


def pixart_pipeline_with_encoder() -> Any:
    return pixart_pipeline(tokenizer=tokenizer(), text_encoder=text_encoder())


def plain_pixart() -> Any:
    pipeline = pixart_pipeline()
    pipeline.transformer.set_attn_processor(AttnProcessor())
    return pipeline


def sana_transformer(**settings: Any) -> SanaTransformer2DModel:
    torch.manual_seed(0)
    return SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        sample_size=4,
        num_cross_attention_heads=HEADS,
        cross_attention_head_dim=HEAD_DIM,
        **SIZES,
        **settings,
    )


def sana_pipeline() -> Any:
    return _pipeline(SanaPipeline, sana_transformer(), FlowMatchEulerDiscreteScheduler())


def sana_sprint_pipeline() -> Any:
    transformer = sana_transformer(guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return _pipeline(SanaSprintPipeline, transformer, SCMScheduler())


def sana_video_pipeline(num_channels: int = 4) -> Any:
    torch.manual_seed(0)
    transformer = SanaVideoTransformer3DModel(
        in_channels=num_channels,
        out_channels=num_channels,
        sample_size=4,
        num_cross_attention_heads=HEADS,
        cross_attention_head_dim=HEAD_DIM,
        rope_max_seq_len=16,
        **SIZES,
    )
    scheduler = DPMSolverMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0
    )
    return _pipeline(SanaVideoPipeline, transformer, scheduler)


def latte_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = LatteTransformer3DModel(
        in_channels=4,
        out_channels=8,
        sample_size=8,
        patch_size=2,
        attention_bias=True,
        norm_type="ada_norm_single",
        num_embeds_ada_norm=1000,
        norm_elementwise_affine=False,
        video_length=2,
        **SIZES,
    )
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1)
    return _pipeline(LattePipeline, transformer, scheduler)


def allegro_pipeline() -> Any:
    torch.manual_seed(0)
    transformer = AllegroTransformer3DModel(
        sample_height=8, sample_width=8, sample_frames=2, **SIZES
    )
    return _pipeline(AllegroPipeline, transformer, EulerDiscreteScheduler())


class NoSafetyChecker:
    """Stands for the safety checker of Cosmos, a package of its own; embeddings need none."""

    def to(self, _device: Any) -> "NoSafetyChecker":
        return self


def cosmos_transformer(
    image_tokens: int | None = None, *, is_25: bool = False, **changes: Any
) -> CosmosTransformer3DModel:
    """Build the transformer of Cosmos 1 and 2, or that of 2.5, which projects its text."""
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD_DIM,
        "num_layers": 2,
        "mlp_ratio": 2,
        "text_embed_dim": WIDTH if is_25 else TEXT_DIM,
        "adaln_lora_dim": 4,
        "max_size": (2, 16, 16),
        "concat_padding_mask": False,
        "extra_pos_embed_type": None,
        "use_crossattn_projection": is_25,
        "crossattn_proj_in_channels": TEXT_DIM,
        "encoder_hidden_states_channels": WIDTH,
        "img_context_dim_in": 6 if image_tokens else None,
        "img_context_num_tokens": image_tokens or 0,
        "img_context_dim_out": WIDTH,
    }
    return CosmosTransformer3DModel(**{**config, **changes}).eval()


def cosmos_pipeline(image_tokens: int | None = None) -> Any:
    """Build Cosmos 2; with image tokens, the transformer of 2.5, which takes them beside the text.

    A pipeline of 2.5 needs an autoencoder and a ControlNet for them, so a hook adds them here.
    """
    transformer = cosmos_transformer(image_tokens, is_25=image_tokens is not None)
    if image_tokens:
        image = torch.randn(1, image_tokens, 6)
        transformer.register_forward_pre_hook(
            lambda _module, args, kwargs: (args, _with_image(kwargs, image)), with_kwargs=True
        )
    return _pipeline(
        Cosmos2TextToImagePipeline,
        transformer,
        FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        safety_checker=NoSafetyChecker(),
    )


def _with_image(call: dict[str, Any], image: torch.Tensor) -> dict[str, Any]:
    text = call["encoder_hidden_states"]
    return {**call, "encoder_hidden_states": (text, image.expand(len(text), -1, -1))}


def kandinsky_pipeline(*, has_image: bool = False) -> Any:
    """Build Kandinsky 5, whose text passes through one block of its own."""
    torch.manual_seed(0)
    transformer = Kandinsky5Transformer3DModel(
        in_visual_dim=4,
        in_text_dim=TEXT_DIM,
        in_text_dim2=TEXT_DIM,
        time_dim=16,
        out_visual_dim=4,
        model_dim=24,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 4, 4),
        visual_cond=has_image,
    )
    for name, weight in transformer.named_parameters():
        if name.endswith("modulation.out_layer.weight"):
            torch.nn.init.normal_(weight, std=0.2)  # zero when new
    pipeline = _pipeline(
        Kandinsky5T2IPipeline,
        transformer,
        FlowMatchEulerDiscreteScheduler(),
        text_encoder_2=None,
        tokenizer_2=None,
    )
    pipeline.resolutions = [(64, 64)]
    return pipeline


class AudioCodec:
    """Stands for Stable Audio's autoencoder, whose building warns of a change in torch."""

    hop_length = 2
    config = SimpleNamespace(sampling_rate=8, audio_channels=2)


def stable_audio_pipeline() -> Any:
    """Build Stable Audio, whose keys and values have half the heads of its queries."""
    torch.manual_seed(0)
    transformer = StableAudioDiTModel(
        sample_size=8,
        in_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        num_key_value_attention_heads=2,
        out_channels=4,
        cross_attention_dim=16,
        time_proj_dim=8,
        global_states_input_dim=2 * TEXT_DIM,
        cross_attention_input_dim=TEXT_DIM,
    )
    return _pipeline(
        StableAudioPipeline,
        transformer,
        EDMDPMSolverMultistepScheduler(sigma_max=20.0),
        vae=AudioCodec(),
        projection_model=StableAudioProjectionModel(TEXT_DIM, TEXT_DIM, 0, 8).eval(),
    )
