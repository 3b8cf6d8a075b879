"""The Shapes model of the Wan family: its parts at tiny size, and their calls in training.

The autoencoder has the layout of Wan 2.2 (residual blocks, 2 x 2 pixel patches), which learns
several times faster from scratch than that of Wan 2.1: 8 x 8 pixels and 4 frames per latent cell,
so a clip becomes latents of (16, 5, 8, 8). The width of the transformer (128) must exceed the
channels of a patch (64), or it never learns to denoise.
"""

from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

from pipelines.shapes.latents import encode_clips, normalise
from pipelines.shapes.training.autoencoder import (
    AutoencoderTraining,
    fit,
    picture_loss,
    random_clips,
    random_crops,
)
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import TEXT_DIM, EncodedCaptions
from pipelines.shapes.world import ShapesClip, render_uint8, sample_clip

LATENT_SHAPE = (16, 5, 8, 8)  # (C, F, H, W)
PATCH_SIZE_PX = 2
KL_WEIGHT = 1e-4  # keeps the latents near unit scale; larger blurs edges
SAMPLING_FLOW_SHIFT = 3.0
NUM_TRAIN_TIMESTEPS = 1000
AUTOENCODER_TRAINING = AutoencoderTraining(
    stage="autoencoder", num_steps=9000, full_share=0.033, learning_rate=3e-3
)
NUM_AUTOENCODER_CLIPS = 2000  # drawn once; crops are drawn afresh
CROP_PX, CROP_FRAMES = 32, 9


def build_autoencoder(
    latents_mean: list[float] | None = None, latents_std: list[float] | None = None
) -> AutoencoderKLWan:
    """Build the untrained autoencoder.

    The statistics of the latents are part of its config and known only after training.
    """
    num_channels = LATENT_SHAPE[0]
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=num_channels,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=PATCH_SIZE_PX,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
        latents_mean=latents_mean or [0.0] * num_channels,
        latents_std=latents_std or [1.0] * num_channels,
    )


def decode_unclamped(autoencoder: AutoencoderKLWan, latents_BCFHW: torch.Tensor) -> torch.Tensor:
    """Decode without the last clamp of `decode`, which has no gradient at saturated pixels."""
    autoencoder.clear_cache()
    hidden = autoencoder.post_quant_conv(latents_BCFHW)
    chunks: list[torch.Tensor] = []
    for index in range(hidden.shape[2]):
        autoencoder._conv_idx = [0]
        chunks.append(
            autoencoder.decoder(
                hidden[:, :, index : index + 1],
                feat_cache=autoencoder._feat_map,
                feat_idx=autoencoder._conv_idx,
                first_chunk=index == 0,
            )
        )
    autoencoder.clear_cache()
    return unpatchify(torch.cat(chunks, dim=2), patch_size=PATCH_SIZE_PX)


def train_autoencoder(running: Running) -> AutoencoderKLWan:
    """Train from scratch, and measure mean and std of the latents per channel for the config."""
    training, device = AUTOENCODER_TRAINING, running.compute.device
    batch_size = training.batch_size * running.compute.batch_factor
    torch.manual_seed(training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    autoencoder = build_autoencoder().train()
    torch.nn.Module.to(autoencoder, device)  # diffusers' own `to` is annotated wrongly
    clips_NCTHW = render_uint8(
        [sample_clip(generator, anywhere=True) for _ in range(NUM_AUTOENCODER_CLIPS)]
    ).to(device)

    def loss(progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        if training.is_full(progress):
            video_BCTHW = random_clips(clips_NCTHW, batch_size // 2, generator)
        else:
            video_BCTHW = random_crops(clips_NCTHW, batch_size, CROP_PX, CROP_FRAMES, generator)
        encoded: Any = autoencoder.encode(video_BCTHW)
        posterior = encoded.latent_dist
        picture = picture_loss(
            decode_unclamped(autoencoder, posterior.sample(generator)), video_BCTHW
        )
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        return picture + KL_WEIGHT * kl, picture

    fit(training, autoencoder, loss, generator, running)
    autoencoder.cpu().eval()
    latents = encode_clips(
        autoencoder, render_uint8([sample_clip(generator, anywhere=True) for _ in range(256)])
    )
    finished = build_autoencoder(
        latents_mean=latents.mean(dim=(0, 2, 3, 4)).tolist(),
        latents_std=latents.std(dim=(0, 2, 3, 4)).tolist(),
    )
    finished.load_state_dict(autoencoder.state_dict())
    return finished.eval()


def training_latents(autoencoder: AutoencoderKLWan, clips: list[ShapesClip]) -> torch.Tensor:
    """Return the latents that the transformer learns to denoise, (N, C, F, H, W) float32."""
    return normalise(autoencoder, encode_clips(autoencoder, render_uint8(clips)).float())


def build_transformer(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        text_dim=TEXT_DIM,
        freq_dim=128,
        ffn_dim=512,
        num_layers=5,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )


def velocity(
    transformer: Any, noisy_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions
) -> torch.Tensor:
    """Return the flow, noise minus latents, (B, C, F, H, W), with the inputs of `WanPipeline`."""
    return transformer(noisy_BCFHW, sigmas_B * NUM_TRAIN_TIMESTEPS, text.embeds, return_dict=False)[
        0
    ]


def build_scheduler() -> UniPCMultistepScheduler:
    return UniPCMultistepScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=SAMPLING_FLOW_SHIFT,
    )


def assemble(tokenizer: Any, text_encoder: Any, autoencoder: Any, transformer: Any) -> WanPipeline:
    pipeline_class: Any = WanPipeline  # its annotations name classes that it does not insist on
    return pipeline_class(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=autoencoder,
        scheduler=build_scheduler(),
        transformer=transformer,
    )
