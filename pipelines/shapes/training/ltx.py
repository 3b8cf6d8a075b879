"""The Shapes model of the LTX family: its parts at tiny size, and their calls in training.

The autoencoder has the layout of LTX 0.9.5, less deep: 16 x 16 pixels and 4 frames per latent cell,
so a clip of 64 x 64 becomes latents of (64, 5, 4, 4), 80 tokens. It does not find its latents by
itself: that failed within an hour on two cores (a picture without shapes, at weights of the
Kullback-Leibler term from 1e-5 to 1e-3). Instead it is taught the latents of shapes-wan, each 2 x 2
cells as one. So encoder and decoder learn apart, and the transformer learns from the taught
latents.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from torch.nn import functional

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.training import wan
from pipelines.shapes.training.autoencoder import AutoencoderTraining, fit, picture_loss
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.text import TEXT_DIM, EncodedCaptions
from pipelines.shapes.world import FPS, MOTIONS, ShapesClip, all_clips, render_uint8

LATENT_SHAPE = (64, 5, 4, 4)  # (C, F, H, W)
PIXELS_PER_CELL, FRAMES_PER_CELL = 16, 4
POSTERIOR_LOGVAR = -4.6  # a spread of 0.1; the LTX encoder predicts one for all channels
SAMPLING_FLOW_SHIFT = 3.0
NUM_TRAIN_TIMESTEPS = 1000
DECODER_TRAINING = AutoencoderTraining(
    stage="decoder",
    num_steps=2500,
    full_share=0.16,
    learning_rate=8e-4,
    batch_size=12,
    fan_in=1728,
)
# the first one draws some of the circles as squares
LONGER_DECODER_TRAINING = AutoencoderTraining(
    stage="decoder, longer",
    num_steps=3000,
    full_share=0.1,
    learning_rate=6e-4,
    batch_size=12,
    fan_in=1728,
    max_learning_rate=1.5e-3,
    seed=1,
)
ENCODER_TRAINING = AutoencoderTraining(
    stage="encoder",
    num_steps=1200,
    full_share=1.0,
    learning_rate=8e-4,
    batch_size=4,
    fan_in=1728,
)
LEARNS_MADE_LATENTS = True
SHARES = (0.3, 0.4, 0.3)  # shares of a budget of time: decoder, decoder longer, encoder
NUM_AUTOENCODER_CLIPS = 3000
MAX_LATENT_NOISE = 0.1  # makes the decoder robust to inexact latents
WINDOW_CELLS = 2  # height and width of the decoder's crops


def build_autoencoder() -> AutoencoderKLLTXVideo:
    return AutoencoderKLLTXVideo(
        latent_channels=LATENT_SHAPE[0],
        block_out_channels=(32, 64, 128),
        down_block_types=("LTXVideo095DownBlock3D",) * 2,
        decoder_block_out_channels=(64, 128),
        layers_per_block=(1, 1, 1),
        decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True,) * 2,
        decoder_spatio_temporal_scaling=(True,) * 2,
        decoder_inject_noise=(False,) * 3,
        downsample_type=("spatiotemporal",) * 2,
        upsample_residual=(True,) * 2,
        upsample_factor=(2,) * 2,
        timestep_conditioning=False,
        patch_size=4,
        patch_size_t=1,
        encoder_causal=True,
        decoder_causal=False,
    )


def train_autoencoder(running: Running) -> AutoencoderKLLTXVideo:
    """Teach decoder and encoder the latents of shapes-wan, which have mean 0 and spread 1."""
    device, factor = running.compute.device, running.compute.batch_factor
    torch.manual_seed(DECODER_TRAINING.seed)
    generator = torch.Generator().manual_seed(DECODER_TRAINING.seed)
    autoencoder = build_autoencoder().train()
    torch.nn.Module.to(autoencoder, device)  # diffusers' own `to` is annotated wrongly
    members = all_clips()
    clips = [
        members[index]
        for index in torch.randperm(len(members), generator=generator)[:NUM_AUTOENCODER_CLIPS]
    ]
    videos_NCTHW = render_uint8(clips).to(device)
    latents_NCFHW = taught_latents(clips, device).to(device)

    def decoder_loss(
        training: AutoencoderTraining, progress: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        is_full = training.is_full(progress)
        num_clips = training.batch_size * factor // (3 if is_full else 1)
        rows = torch.randint(len(clips), (num_clips,), generator=generator).tolist()
        windows = [Window() if is_full else window_at_shape(clips[row], generator) for row in rows]
        pairs = list(zip(rows, windows, strict=True))
        latents = torch.stack([window.of(latents_NCFHW[row]) for row, window in pairs])
        videos = torch.stack(
            [window.of(videos_NCTHW[row], PIXELS_PER_CELL) for row, window in pairs]
        )
        decoded: Any = autoencoder.decode(with_noise(latents, generator))
        loss = picture_loss(decoded.sample, videos.float() / 127.5 - 1)
        return loss, loss

    def encoder_loss(_progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        num_clips = ENCODER_TRAINING.batch_size * factor
        rows = torch.randint(len(clips), (num_clips,), generator=generator)
        encoded: Any = autoencoder.encode(videos_NCTHW[rows].float() / 127.5 - 1)
        miss = functional.mse_loss(encoded.latent_dist.mean, latents_NCFHW[rows])
        return miss + 0.01 * (encoded.latent_dist.logvar - POSTERIOR_LOGVAR).square().mean(), miss

    first, longer, last = (_timed(running, share) for share in SHARES)
    for training, timed in ((DECODER_TRAINING, first), (LONGER_DECODER_TRAINING, longer)):
        fit(training, autoencoder.decoder, partial(decoder_loss, training), generator, timed)
    fit(ENCODER_TRAINING, autoencoder.encoder, encoder_loss, generator, last)
    return autoencoder.cpu().eval()


def with_noise(latents_BCFHW: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Add noise of a random strength to each clip."""
    strengths = MAX_LATENT_NOISE * torch.rand((len(latents_BCFHW), 1, 1, 1, 1), generator=generator)
    noise = strengths * torch.randn(latents_BCFHW.shape, generator=generator)
    return latents_BCFHW + noise.to(latents_BCFHW.device)


def _timed(running: Running, share: float) -> Running:
    return running if running.seconds is None else replace(running, seconds=share * running.seconds)


@dataclass(frozen=True)
class Window:
    """A square of latent cells; the whole frame by default."""

    top: int = 0
    left: int = 0
    num_cells: int = LATENT_SHAPE[2]

    def of(self, frames: torch.Tensor, size_of_cell: int = 1) -> torch.Tensor:
        """Return the part of (C, F, H, W) inside the square."""
        top, left, size = (size_of_cell * edge for edge in (self.top, self.left, self.num_cells))
        return frames[:, :, top : top + size, left : left + size]


def window_at_shape(clip: ShapesClip, generator: torch.Generator) -> Window:
    """Return 2 x 2 cells at the middle of the path of the clip, or one cell before."""
    edges: list[int] = []
    for axis in (1, 0):
        middle_px = clip.start_xy_px[axis] + 8 * MOTIONS[clip.motion][axis]
        first = (
            int(middle_px // PIXELS_PER_CELL) - 1 + int(torch.randint(2, (), generator=generator))
        )
        edges.append(min(max(first, 0), LATENT_SHAPE[2] - WINDOW_CELLS))
    return Window(edges[0], edges[1], WINDOW_CELLS)


def taught_latents(clips: list[ShapesClip], device: torch.device | None = None) -> torch.Tensor:
    """Encode clips with shapes-wan, 2 x 2 cells as the channels of one cell.

    Returns:
        Normalised latents, (N, 64, 5, 4, 4) float32.
    """
    teacher = AutoencoderKLWan.from_pretrained(
        PACKAGED_WEIGHTS / "shapes-wan" / "vae", use_safetensors=True
    )
    torch.nn.Module.to(teacher.eval(), device or "cpu")
    chunks = [clips[first : first + 120] for first in range(0, len(clips), 120)]
    latents = torch.cat(
        [wan.normalise(teacher, wan.encode_clips(teacher, render_uint8(chunk))) for chunk in chunks]
    )
    cells = latents.unflatten(4, (-1, 2)).unflatten(3, (-1, 2))  # (N, c, F, H, y, W, x)
    return cells.permute(0, 1, 4, 6, 2, 3, 5).flatten(1, 3).contiguous()


@torch.no_grad()
def encode_clips(
    autoencoder: AutoencoderKLLTXVideo, clips_NCTHW: torch.Tensor, batch_size: int = 32
) -> torch.Tensor:
    """Encode uint8 clips: (N, C, F, H, W) float32."""
    encoded: list[Any] = [
        autoencoder.encode(chunk.float() / 127.5 - 1) for chunk in clips_NCTHW.split(batch_size)
    ]
    return torch.cat([one.latent_dist.mode() for one in encoded])


def training_latents(autoencoder: AutoencoderKLLTXVideo, clips: list[ShapesClip]) -> torch.Tensor:
    return taught_latents(clips, autoencoder.device)


def build_transformer(seed: int) -> LTXVideoTransformer3DModel:
    torch.manual_seed(seed)
    return LTXVideoTransformer3DModel(
        in_channels=LATENT_SHAPE[0],
        out_channels=LATENT_SHAPE[0],
        num_attention_heads=4,
        attention_head_dim=32,
        cross_attention_dim=128,
        caption_channels=TEXT_DIM,
        num_layers=5,
    )


def velocity(
    transformer: Any, noisy_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions
) -> torch.Tensor:
    """Return the flow, noise minus latents, (B, C, F, H, W), with the inputs of `LTXPipeline`."""
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


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=NUM_TRAIN_TIMESTEPS, shift=SAMPLING_FLOW_SHIFT
    )


def assemble(tokenizer: Any, text_encoder: Any, autoencoder: Any, transformer: Any) -> LTXPipeline:
    return LTXPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=autoencoder,
        scheduler=build_scheduler(),
        transformer=transformer,
    )
