"""Real diffusers classes at tiny size, with random weights, for tests of nag/ and pipelines/.

Pipelines share their autoencoder, tokenizer and encoders, which take two thirds of the time that a
pipeline takes, and which no code under test changes. Each has a transformer of its own. A test that
changes another part gives its pipeline a new one: `pipeline.vae = tiny.wan_vae()`.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,  # pyright: ignore[reportAttributeAccessIssue]
    UMT5Config,
    UMT5EncoderModel,
)

TEXT_DIM = 16
IMAGE_DIM = 20
LETTERS = "abcdefghijklmnopqrstuvwxyz ,"


def tokenizer() -> T5TokenizerFast:
    vocabulary = [
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁", -2.0),
        *((letter, -3.0) for letter in LETTERS),
    ]
    return T5TokenizerFast(vocab=vocabulary, extra_ids=0)


def text_encoder(config_class: Any = UMT5Config, model_class: Any = UMT5EncoderModel) -> Any:
    torch.manual_seed(1)
    config = config_class(
        vocab_size=len(LETTERS) + 4,
        d_model=TEXT_DIM,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        dropout_rate=0.0,
    )
    return model_class(config).eval()


HEAD_DIM = 12


def wan_transformer(
    seed: int = 0,
    image_dim: int | None = None,
    in_channels: int = 8,
    pos_embed_seq_len: int | None = None,
    num_heads: int = 2,
    out_channels: int = 8,
) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=num_heads,
        attention_head_dim=HEAD_DIM,
        in_channels=in_channels,
        out_channels=out_channels,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=48,
        num_layers=2,
        cross_attn_norm=True,
        rope_max_seq_len=32,
        image_dim=image_dim,
        added_kv_proj_dim=num_heads * HEAD_DIM if image_dim else None,
        pos_embed_seq_len=pos_embed_seq_len,
    ).eval()


def wan_vae() -> AutoencoderKLWan:
    torch.manual_seed(2)
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=8,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    ).eval()


def wan_vae_that_encodes_once() -> AutoencoderKLWan:
    """Build an autoencoder that encodes each video once, since all cases have one image.

    Encoding it takes five sixths of the time of a render.
    """
    vae: Any = wan_vae()
    encode, encoded = vae.encode, dict[tuple[Any, ...], Any]()

    def encode_once(video_BCTHW: torch.Tensor) -> Any:
        key = (video_BCTHW.shape, video_BCTHW.dtype, video_BCTHW.double().numpy().tobytes())
        if key not in encoded:
            encoded[key] = encode(video_BCTHW)
        return encoded[key]

    vae.encode = encode_once
    return vae


def ltx_vae() -> AutoencoderKLLTXVideo:
    torch.manual_seed(2)
    return AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False,) * 5,
        upsample_residual=(False,) * 4,
        upsample_factor=(1,) * 4,
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    ).eval()


@cache
def shared(build: Callable[..., Any], *arguments: Any) -> Any:
    """Return the part that all pipelines of this process share."""
    return build(*arguments)


def wan_pipeline(two_transformers: bool = False, num_heads: int = 2) -> WanPipeline:
    """Build the layout of Wan 2.1, or with two transformers the layout of Wan 2.2."""
    scheduler: Any = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipeline = WanPipeline(
        tokenizer=shared(tokenizer),
        text_encoder=shared(text_encoder),
        vae=shared(wan_vae),
        scheduler=scheduler,
        transformer=wan_transformer(0, num_heads=num_heads),
        transformer_2=wan_transformer(7, num_heads=num_heads) if two_transformers else None,
        boundary_ratio=0.7 if two_transformers else None,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def wan_vace_pipeline() -> WanVACEPipeline:
    """Build Wan 2.1 VACE's layout: its first block has a second lane for the control video."""
    torch.manual_seed(0)
    transformer = WanVACETransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=HEAD_DIM,
        in_channels=8,
        out_channels=8,
        text_dim=TEXT_DIM,
        freq_dim=32,
        ffn_dim=48,
        num_layers=2,
        cross_attn_norm=True,
        rope_max_seq_len=32,
        vace_layers=[0],
        vace_in_channels=2 * 8 + 64,
    ).eval()
    stock = wan_pipeline()
    pipeline = WanVACEPipeline(
        tokenizer=stock.tokenizer,
        text_encoder=stock.text_encoder,
        vae=stock.vae,
        scheduler=stock.scheduler,
        transformer=transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image_encoder() -> CLIPVisionModel:
    """Build an image encoder that gives 257 tokens an image, as Wan 2.1's does."""
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=IMAGE_DIM,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=2,
    )
    return CLIPVisionModel(config).eval()


def wan_image_to_video_pipeline(
    with_last_image: bool = False, num_heads: int = 2
) -> WanImageToVideoPipeline:
    """Build Wan 2.1's image-to-video layout.

    Inputs are latents, mask and condition; each cross-attention has an image branch.
    """
    scheduler: Any = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    size = {"height": 32, "width": 32}
    image_processor: Any = CLIPImageProcessorPil(size=size, crop_size=size)
    pipeline = WanImageToVideoPipeline(
        tokenizer=shared(tokenizer),
        text_encoder=shared(text_encoder),
        image_encoder=shared(image_encoder),
        image_processor=image_processor,
        vae=shared(wan_vae_that_encodes_once),
        scheduler=scheduler,
        transformer=wan_transformer(
            0,
            image_dim=IMAGE_DIM,
            in_channels=8 + 8 + 4,
            pos_embed_seq_len=514 if with_last_image else None,
            num_heads=num_heads,
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def ltx_transformer(num_heads: int) -> LTXVideoTransformer3DModel:
    torch.manual_seed(0)
    return LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=num_heads,
        attention_head_dim=HEAD_DIM,
        cross_attention_dim=num_heads * HEAD_DIM,
        caption_channels=TEXT_DIM,
        num_layers=2,
    ).eval()


def ltx_pipeline(num_heads: int = 2) -> LTXPipeline:
    pipeline = LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=shared(ltx_vae),
        text_encoder=shared(text_encoder, T5Config, T5EncoderModel),
        tokenizer=shared(tokenizer),
        transformer=ltx_transformer(num_heads),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


PIPELINES: dict[str, Callable[[], Any]] = {
    "wan2.1": wan_pipeline,
    "wan2.2": lambda: wan_pipeline(two_transformers=True),
    "ltx": ltx_pipeline,
}
