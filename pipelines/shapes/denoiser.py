"""Trains the Shapes models' transformer: a stock `WanTransformer3DModel` at tiny size, by flow matching.

Decides the transformer's size and its training. The width (128) must exceed the channels of a patch (64), or it never
learns to denoise; the latents are normalised with the autoencoder's mean and std, as `WanPipeline` expects.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.training_utils import EMAModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5Tokenizer, UMT5EncoderModel

from pipelines.shapes.autoencoder import NUM_LATENT_CHANNELS, encode_clips
from pipelines.shapes.captions import caption
from pipelines.shapes.text import MAX_TOKENS, encode_captions
from pipelines.shapes.training_log import LogStep
from pipelines.shapes.world import ShapesClip, render_uint8, sample_clip

NUM_TRAIN_TIMESTEPS = 1000


@dataclass(frozen=True)
class DenoiserTraining:
    """One course of training: on which clips, how long and how fast.

    Args:
        anywhere: clips of any size, place and speed, instead of members of the world.
        learning_rate: AdamW's peak.
        muon_learning_rate: Muon's peak, for the blocks' matrices; None leaves them to AdamW too.
        shape_weight: how much more the error counts where the latents differ from the background's, a seventh of them.
        flow_shift: of the training noise: more weight on the noisy end, where the content is decided.
        max_tokens: captions are padded or cut to it.
    """

    name: str
    anywhere: bool
    num_steps: int
    num_clips: int
    learning_rate: float
    flow_shift: float
    max_tokens: int
    seed: int
    muon_learning_rate: float | None = None
    shape_weight: float = 0.0
    batch_size: int = 64
    ema_decay: float = 0.999


# The first course teaches colours, places and motion, the second one to draw the world's own shapes sharply, the third
# one the longest captions, and more of the second.
COURSES = (
    DenoiserTraining(
        name="anywhere",
        anywhere=True,
        num_steps=7000,
        num_clips=12_000,
        learning_rate=1.5e-3,
        flow_shift=2.0,
        max_tokens=32,
        seed=2,
    ),
    DenoiserTraining(
        name="lattice",
        anywhere=False,
        num_steps=5500,
        num_clips=7_000,
        learning_rate=1e-3,
        flow_shift=3.0,
        max_tokens=32,
        seed=2,
        muon_learning_rate=5e-3,
        shape_weight=6.0,
    ),
    DenoiserTraining(
        name="lattice, long captions",
        anywhere=False,
        num_steps=4200,
        num_clips=7_000,
        learning_rate=7e-4,
        flow_shift=3.0,
        max_tokens=MAX_TOKENS,
        seed=3,
        muon_learning_rate=4e-3,
        shape_weight=6.0,
    ),
)
CLIPS_SEED = 3
OFF_BACKGROUND = 0.3  # mean square distance of a latent cell from the clip's median cell


def build_transformer(seed: int) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=32,
        in_channels=NUM_LATENT_CHANNELS,
        out_channels=NUM_LATENT_CHANNELS,
        text_dim=64,
        freq_dim=128,
        ffn_dim=512,
        num_layers=5,
        cross_attn_norm=True,
        rope_max_seq_len=32,
    )


def normalised_latents(
    autoencoder: AutoencoderKLWan, clips: list[ShapesClip], chunk: int = 256
) -> Iterator[torch.Tensor]:
    """Latents as `WanPipeline` denoises them, (N, C, F, H, W) float32, a chunk of clips at a time."""
    config: Any = autoencoder.config
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (config.latents_mean, config.latents_std))
    for first in range(0, len(clips), chunk):
        # bfloat16 is four times as fast here and moves the latents by 1 % of their spread
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents = encode_clips(autoencoder, render_uint8(clips[first : first + chunk]))
        yield (latents.float() - mean) / std


def sample_sigmas(training: DenoiserTraining, generator: torch.Generator) -> torch.Tensor:
    """Noise levels of a batch, (B,), spread evenly and then shifted as the sampler's schedule is."""
    spread = torch.arange(training.batch_size) + torch.rand(training.batch_size, generator=generator)
    uniform = spread / training.batch_size
    return training.flow_shift * uniform / (1 + (training.flow_shift - 1) * uniform)


def cell_weights(latents_BCFHW: torch.Tensor, shape_weight: float) -> torch.Tensor:
    """Weights of mean 1, larger where something other than background is: (B, 1, F, H, W)."""
    background_BC = latents_BCFHW.flatten(2).median(dim=2).values
    distance = (latents_BCFHW - background_BC[:, :, None, None, None]).square().mean(dim=1, keepdim=True)
    weights = 1 + shape_weight * (distance > OFF_BACKGROUND)
    return weights / weights.mean()


def build_optimizers(training: DenoiserTraining, transformer: WanTransformer3DModel) -> list[torch.optim.Optimizer]:
    """AdamW, and Muon for the blocks' matrices where the course asks for it."""
    matrices = [
        parameter
        for name, parameter in transformer.named_parameters()
        if training.muon_learning_rate and parameter.ndim == 2 and name.startswith("blocks.")
    ]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in transformer.parameters() if id(parameter) not in taken]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=training.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    ]
    if training.muon_learning_rate:
        muon = torch.optim.Muon(
            matrices, lr=training.muon_learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        )
        optimizers.append(muon)
    return optimizers


def train_transformer(
    training: DenoiserTraining,
    transformer: WanTransformer3DModel,
    tokenizer: T5Tokenizer,
    text_encoder: UMT5EncoderModel,
    clips: list[ShapesClip],
    latents_NCFHW: torch.Tensor,
    log_step: LogStep,
) -> WanTransformer3DModel:
    """Trains `transformer` further; every time a clip is seen its caption is worded afresh.

    Returns:
        The exponential moving average of the weights.
    """
    generator = torch.Generator().manual_seed(training.seed)
    transformer.train()
    ema = EMAModel(transformer.parameters(), decay=training.ema_decay, use_ema_warmup=True, power=0.75)
    optimizers = build_optimizers(training, transformer)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            optimizer.param_groups[0]["lr"],
            total_steps=training.num_steps,
            pct_start=0.05,
            final_div_factor=100,
            cycle_momentum=isinstance(optimizer, torch.optim.AdamW),
        )
        for optimizer in optimizers
    ]
    compiled = torch.compile(transformer)
    for step in range(training.num_steps):
        rows = torch.randint(len(clips), (training.batch_size,), generator=generator)
        latents_BCFHW = latents_NCFHW[rows].float()
        with torch.no_grad():
            captions = [caption(clips[row], generator) for row in rows.tolist()]
            text_BLD = encode_captions(tokenizer, text_encoder, captions, training.max_tokens)
        sigmas = sample_sigmas(training, generator)[torch.randperm(training.batch_size, generator=generator)]
        noise_BCFHW = torch.randn(latents_BCFHW.shape, generator=generator)
        level = sigmas.view(-1, 1, 1, 1, 1)
        noisy_BCFHW = (1 - level) * latents_BCFHW + level * noise_BCFHW
        # the flash kernel's backward pass is several times slower than the plain one on a CPU
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            velocity_BCFHW = compiled(noisy_BCFHW, sigmas * NUM_TRAIN_TIMESTEPS, text_BLD, return_dict=False)[0]
            error_BCFHW = (velocity_BCFHW.float() - (noise_BCFHW - latents_BCFHW)).square()
            loss = (error_BCFHW * cell_weights(latents_BCFHW, training.shape_weight)).mean()
            transformer.zero_grad(set_to_none=True)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        ema.step(transformer.parameters())
        log_step(f"transformer, {training.name}", step, loss.item())
    ema.copy_to(transformer.parameters())
    return transformer.eval()


def sample_training_clips(training: DenoiserTraining) -> list[ShapesClip]:
    generator = torch.Generator().manual_seed(CLIPS_SEED)
    return [sample_clip(generator, anywhere=training.anywhere) for _ in range(training.num_clips)]
