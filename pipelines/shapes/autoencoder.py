"""Trains the Shapes models' video autoencoder: a stock `AutoencoderKLWan` at tiny size.

Decides the autoencoder's layout and its training. The layout is Wan 2.2's (residual blocks, 2 x 2 pixel patches),
which learns several times faster from scratch than Wan 2.1's. Compression is 8 x 8 pixels and 4 frames: a clip of
17 x 64 x 64 becomes latents of (16, 5, 8, 8).
"""

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from pipelines.shapes.training_log import LogStep
from pipelines.shapes.world import NUM_FRAMES, SIZE_PX, render_uint8, sample_clip

NUM_LATENT_CHANNELS = 16
PATCH_SIZE_PX = 2
KL_WEIGHT = 1e-4  # keeps the latents near unit scale; larger blurs edges


@dataclass(frozen=True)
class AutoencoderTraining:
    """How long and how fast the autoencoder learns."""

    num_steps: int = 9000
    num_full_steps: int = 300  # the last steps see whole clips instead of crops, for the frame's borders
    batch_size: int = 8
    learning_rate: float = 3e-3
    crop_px: int = 32
    crop_frames: int = 9
    num_clips: int = 2000  # drawn once; crops are drawn afresh
    seed: int = 0


def build_autoencoder(
    latents_mean: list[float] | None = None, latents_std: list[float] | None = None
) -> AutoencoderKLWan:
    """The untrained autoencoder; the latents' statistics are part of its config and known only after training."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=NUM_LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        is_residual=True,
        patch_size=PATCH_SIZE_PX,
        in_channels=12,
        out_channels=12,
        scale_factor_spatial=8,
        scale_factor_temporal=4,
        latents_mean=latents_mean or [0.0] * NUM_LATENT_CHANNELS,
        latents_std=latents_std or [1.0] * NUM_LATENT_CHANNELS,
    )


def decode_unclamped(autoencoder: AutoencoderKLWan, latents_BCFHW: torch.Tensor) -> torch.Tensor:
    """`AutoencoderKLWan.decode` without its last clamp, which has no gradient where a pixel is saturated."""
    autoencoder.clear_cache()
    hidden = autoencoder.post_quant_conv(latents_BCFHW)
    chunks = []
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


def random_crops(clips_NCTHW: torch.Tensor, training: AutoencoderTraining, generator: torch.Generator) -> torch.Tensor:
    """A batch of crops in space and time, (B, C, T, H, W) in -1..1; few of them of the plain background alone."""
    crops = []
    while len(crops) < training.batch_size:
        clip, first, top, left = (
            int(torch.randint(limit, (), generator=generator))
            for limit in (
                len(clips_NCTHW),
                NUM_FRAMES - training.crop_frames + 1,
                SIZE_PX - training.crop_px + 1,
                SIZE_PX - training.crop_px + 1,
            )
        )
        crop = clips_NCTHW[
            clip, :, first : first + training.crop_frames, top : top + training.crop_px, left : left + training.crop_px
        ]
        crop = crop.float() / 127.5 - 1
        if crop.std(dim=(1, 2, 3)).mean() > 0.02 or torch.rand((), generator=generator) < 0.05:
            crops.append(crop)
    return torch.stack(crops)


def random_clips(clips_NCTHW: torch.Tensor, batch_size: int, generator: torch.Generator) -> torch.Tensor:
    """A batch of whole clips, (B, C, T, H, W) in -1..1."""
    return clips_NCTHW[torch.randint(len(clips_NCTHW), (batch_size,), generator=generator)].float() / 127.5 - 1


def posterior_of(autoencoder: AutoencoderKLWan, video_BCTHW: torch.Tensor) -> DiagonalGaussianDistribution:
    encoded: Any = autoencoder.encode(video_BCTHW)
    return encoded.latent_dist


def train_autoencoder(training: AutoencoderTraining, log_step: LogStep) -> AutoencoderKLWan:
    """Trains from scratch on clips drawn afresh each step and measures the latents' mean and std for the config."""
    torch.manual_seed(training.seed)
    generator = torch.Generator().manual_seed(training.seed)
    autoencoder = build_autoencoder().train()
    optimizer = torch.optim.AdamW(
        autoencoder.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.num_steps, pct_start=0.05, final_div_factor=300
    )
    clips_NCTHW = render_uint8([sample_clip(generator, anywhere=True) for _ in range(training.num_clips)])
    for step in range(training.num_steps):
        if step < training.num_steps - training.num_full_steps:
            video_BCTHW = random_crops(clips_NCTHW, training, generator)
        else:
            video_BCTHW = random_clips(clips_NCTHW, training.batch_size // 2, generator)
        posterior = posterior_of(autoencoder, video_BCTHW)
        decoded_BCTHW = decode_unclamped(autoencoder, posterior.sample(generator))
        loss = (decoded_BCTHW - video_BCTHW).abs().mean() + ((decoded_BCTHW - video_BCTHW) ** 2).mean()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
        optimizer.zero_grad(set_to_none=True)
        (loss + KL_WEIGHT * kl).backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        log_step("autoencoder", step, loss.item())
    return with_latent_statistics(autoencoder.eval(), generator)


@torch.no_grad()
def with_latent_statistics(autoencoder: AutoencoderKLWan, generator: torch.Generator) -> AutoencoderKLWan:
    """The same weights in an autoencoder whose config holds the measured mean and std of its latents, per channel."""
    latents = encode_clips(autoencoder, render_uint8([sample_clip(generator, anywhere=True) for _ in range(256)]))
    finished = build_autoencoder(
        latents_mean=latents.mean(dim=(0, 2, 3, 4)).tolist(), latents_std=latents.std(dim=(0, 2, 3, 4)).tolist()
    )
    finished.load_state_dict(autoencoder.state_dict())
    return finished.eval()


@torch.no_grad()
def encode_clips(autoencoder: AutoencoderKLWan, clips_NCTHW: torch.Tensor, batch_size: int = 32) -> torch.Tensor:
    """Latents as the autoencoder gives them, not normalised: (N, C, F, H, W) float32.

    Args:
        clips_NCTHW: uint8 clips, as `world.render_uint8` gives them.
    """
    return torch.cat(
        [posterior_of(autoencoder, chunk.float() / 127.5 - 1).mode() for chunk in clips_NCTHW.split(batch_size)]
    )
