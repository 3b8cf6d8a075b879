"""The Shapes model of the LTX family: its parts at tiny size, and how they are called in training.

The autoencoder has LTX 0.9.5's layout at half its depth of pixels: 16 x 16 pixels and 8 frames to a latent cell, where
LTX's own has 32 x 32, so that a clip of 64 x 64 becomes latents of (64, 3, 4, 4): 48 tokens for the transformer.
"""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)

from pipelines.shapes.autoencoder import AutoencoderTraining, fit_autoencoder, picture_loss
from pipelines.shapes.text import TEXT_DIM, EncodedCaptions
from pipelines.shapes.training_log import LogStep
from pipelines.shapes.world import FPS, render_uint8, sample_clip

LATENT_SHAPE = (64, 3, 4, 4)  # (C, F, H, W)
PIXELS_PER_CELL, FRAMES_PER_CELL = 16, 8
# LTX's encoder predicts one spread for all channels. Learnt with a Kullback-Leibler term it made training jump between
# plateaus (seen at weights of 1e-5 to 1e-3), so it is held at this value and the latents are kept small instead.
POSTERIOR_STD = 0.1
POSTERIOR_LOGVAR = -4.6
LATENT_WEIGHT = 1e-4
SAMPLING_FLOW_SHIFT = 3.0
NUM_TRAIN_TIMESTEPS = 1000
AUTOENCODER_TRAINING = AutoencoderTraining(
    num_steps=6000,
    num_full_steps=500,
    learning_rate=4e-4,  # 8e-4 diverged: the widest layers have 3456 inputs
    num_clips=4000,
    anywhere_every=3,
    min_crop_std=0.05,
    max_gradient_norm=2.0,
    is_bfloat16=True,
)


def build_autoencoder() -> AutoencoderKLLTXVideo:
    return AutoencoderKLLTXVideo(
        latent_channels=LATENT_SHAPE[0],
        block_out_channels=(16, 32, 64, 128),
        down_block_types=("LTXVideo095DownBlock3D",) * 3,
        decoder_block_out_channels=(32, 64, 128),
        layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        spatio_temporal_scaling=(True,) * 3,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        downsample_type=("spatiotemporal",) * 3,
        upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3,
        timestep_conditioning=False,
        patch_size=2,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )


def train_autoencoder(log_step: LogStep) -> AutoencoderKLLTXVideo:
    """Trains from scratch and measures the latents' mean and std, per channel, for its buffers."""
    torch.manual_seed(AUTOENCODER_TRAINING.seed)
    autoencoder = build_autoencoder()

    def loss(video_BCTHW: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        encoded: Any = autoencoder.encode(video_BCTHW)
        mean, logvar = encoded.latent_dist.mean.float(), encoded.latent_dist.logvar.float()
        latents = mean + POSTERIOR_STD * torch.randn(mean.shape, generator=generator)
        decoded: Any = autoencoder.decode(latents)
        picture = picture_loss(decoded.sample.float(), video_BCTHW)
        spread = (logvar - POSTERIOR_LOGVAR).square().mean()
        return picture + LATENT_WEIGHT * (mean.square().mean() + 0.1 * spread), picture

    generator = fit_autoencoder(AUTOENCODER_TRAINING, autoencoder, loss, log_step)
    latents = encode_clips(autoencoder, render_uint8([sample_clip(generator) for _ in range(512)]))
    buffers: Any = autoencoder
    buffers.latents_mean.copy_(latents.mean(dim=(0, 2, 3, 4)))
    buffers.latents_std.copy_(latents.std(dim=(0, 2, 3, 4)))
    return autoencoder


@torch.no_grad()
def encode_clips(autoencoder: AutoencoderKLLTXVideo, clips_NCTHW: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
    """Latents as the autoencoder gives them, not normalised: (N, C, F, H, W) float32, of uint8 clips."""
    encoded: list[Any] = [autoencoder.encode(chunk.float() / 127.5 - 1) for chunk in clips_NCTHW.split(batch_size)]
    return torch.cat([one.latent_dist.mode() for one in encoded])


def normalise(autoencoder: AutoencoderKLLTXVideo, latents_NCFHW: torch.Tensor) -> torch.Tensor:
    """As `LTXPipeline` denoises them, though not packed."""
    statistics: Any = autoencoder
    return LTXPipeline._normalize_latents(latents_NCFHW, statistics.latents_mean, statistics.latents_std)


def build_transformer(seed: int) -> LTXVideoTransformer3DModel:
    torch.manual_seed(seed)
    return LTXVideoTransformer3DModel(
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        num_attention_heads=5,
        attention_head_dim=32,
        cross_attention_dim=160,
        caption_channels=TEXT_DIM,
        num_layers=5,
    )


def velocity(
    transformer: Any, noisy_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions
) -> torch.Tensor:
    """The transformer's flow, noise minus latents, (B, C, F, H, W), called as `LTXPipeline` calls it."""
    num_frames, height, width = noisy_BCFHW.shape[2:]
    flow_BLC = transformer(
        hidden_states=noisy_BCFHW.flatten(2).transpose(1, 2),
        encoder_hidden_states=text.embeds,
        timestep=sigmas_B * NUM_TRAIN_TIMESTEPS,
        encoder_attention_mask=text.attention_mask,
        num_frames=num_frames,
        height=height,
        width=width,
        rope_interpolation_scale=(FRAMES_PER_CELL / FPS, PIXELS_PER_CELL, PIXELS_PER_CELL),
        return_dict=False,
    )[0]
    return flow_BLC.transpose(1, 2).unflatten(2, (num_frames, height, width))


def assemble(tokenizer: Any, text_encoder: Any, autoencoder: Any, transformer: Any) -> LTXPipeline:
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=SAMPLING_FLOW_SHIFT)
    return LTXPipeline(
        tokenizer=tokenizer, text_encoder=text_encoder, vae=autoencoder, scheduler=scheduler, transformer=transformer
    )
