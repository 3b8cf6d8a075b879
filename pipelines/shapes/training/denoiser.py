"""The training of the Shapes transformers from nothing, by flow matching.

Decides how a course is trained. `courses` decides the courses, `models` the architecture and its
inputs.
Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.shapes.captions import NAMED_SHARES, NAMED_SHARES_WITH_IMAGE, caption
from pipelines.shapes.training.conditions import Conditions
from pipelines.shapes.training.courses import DenoiserTraining
from pipelines.shapes.training.models import ShapesModel, TrainedParts
from pipelines.shapes.training.text import encode_captions
from pipelines.shapes.training.training_log import LogStep
from pipelines.shapes.world import ShapesClip, all_clips, sample_clip

CLIPS_SEED = 3
OFF_BACKGROUND = 0.3  # mean square distance of a cell from the median cell of its clip


@dataclass(frozen=True, eq=False)
class Examples:
    """The clips of a course: their latents, and their first images if the model takes one.

    Args:
        latents: normalised, (N, C, F, H, W).
    """

    clips: list[ShapesClip]
    latents: torch.Tensor
    conditions: Conditions | None = None

    @property
    def named_shares(self) -> dict[str, float]:
        return NAMED_SHARES if self.conditions is None else NAMED_SHARES_WITH_IMAGE


def training_clips(training: DenoiserTraining) -> list[ShapesClip]:
    if training.num_clips is None:
        return all_clips()
    generator = torch.Generator().manual_seed(CLIPS_SEED)
    return [sample_clip(generator, anywhere=training.anywhere) for _ in range(training.num_clips)]


def world_latents(model: ShapesModel, autoencoder: Any) -> Iterator[torch.Tensor]:
    """Yield the latents of all members, in the order of `world.all_clips`, in half precision."""
    return (chunk.half() for chunk in normalised_latents(model, autoencoder, all_clips()))


@torch.no_grad()
def normalised_latents(
    model: ShapesModel, autoencoder: Any, clips: list[ShapesClip]
) -> Iterator[torch.Tensor]:
    """Yield latents as the pipeline denoises them, (N, C, F, H, W) float32, 120 clips at a time."""
    for first in range(0, len(clips), 120):
        # bfloat16 is four times as fast here and moves the latents by 1 % of their spread
        with torch.autocast("cpu", dtype=torch.bfloat16):
            latents_NCFHW = model.training_latents(autoencoder, clips[first : first + 120])
        yield latents_NCFHW.float()


def even_sigmas(num_clips: int, flow_shift: float, generator: torch.Generator) -> torch.Tensor:
    """Return the noise levels of a batch, (B,).

    They are spread evenly, shifted as the sampler's schedule is, and shuffled.
    """
    uniform = (torch.arange(num_clips) + torch.rand(num_clips, generator=generator)) / num_clips
    sigmas = flow_shift * uniform / (1 + (flow_shift - 1) * uniform)
    return sigmas[torch.randperm(num_clips, generator=generator)]


def cell_weights(latents_BCFHW: torch.Tensor, shape_weight: float) -> torch.Tensor:
    """Return weights of mean 1, larger where a cell is not background: (B, 1, F, H, W)."""
    background_BC = latents_BCFHW.flatten(2).median(dim=2).values
    distance = (
        (latents_BCFHW - background_BC[:, :, None, None, None]).square().mean(dim=1, keepdim=True)
    )
    weights = 1 + shape_weight * (distance > OFF_BACKGROUND)
    return weights / weights.mean()


def build_optimizers(
    training: DenoiserTraining, transformer: torch.nn.Module
) -> list[torch.optim.Optimizer]:
    """Build AdamW, and Muon for the matrices of the blocks if the course asks for it."""
    matrices = [
        parameter
        for name, parameter in transformer.named_parameters()
        if training.muon_learning_rate
        and parameter.ndim == 2
        and name.startswith(("blocks.", "transformer_blocks."))
    ]
    taken = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in transformer.parameters() if id(parameter) not in taken]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(others, lr=training.learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    ]
    if training.muon_learning_rate:
        muon = torch.optim.Muon(
            matrices,
            lr=training.muon_learning_rate,
            weight_decay=0.01,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return optimizers


def build_schedule(
    training: DenoiserTraining, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.OneCycleLR:
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        optimizer.param_groups[0]["lr"],
        total_steps=training.num_steps,
        pct_start=0.05,
        final_div_factor=100,
        cycle_momentum=isinstance(optimizer, torch.optim.AdamW),
    )


def train_transformer(
    training: DenoiserTraining,
    model: ShapesModel,
    parts: TrainedParts,
    examples: Examples,
    log_step: LogStep,
) -> torch.nn.Module:
    """Train `parts.transformer` further; each time a clip is seen, its caption is worded afresh.

    Returns:
        The transformer with the exponential moving average of its weights.
    """
    transformer = parts.transformer
    generator = torch.Generator().manual_seed(training.seed)
    transformer.train()
    ema = EMAModel(
        transformer.parameters(), decay=training.ema_decay, use_ema_warmup=True, power=0.75
    )
    optimizers = build_optimizers(training, transformer)
    schedules = [build_schedule(training, optimizer) for optimizer in optimizers]
    compiled = torch.compile(transformer)
    for step in range(training.num_steps):
        rows = torch.randint(len(examples.clips), (training.batch_size,), generator=generator)
        clips = [examples.clips[row] for row in rows.tolist()]
        latents_BCFHW = examples.latents[rows].float()
        with torch.no_grad():
            captions = [caption(clip, generator, examples.named_shares) for clip in clips]
            text = encode_captions(
                parts.tokenizer, parts.text_encoder, captions, training.max_tokens
            )
        sigmas_B = even_sigmas(training.batch_size, training.flow_shift, generator)
        noise_BCFHW = torch.randn(latents_BCFHW.shape, generator=generator)
        level = sigmas_B.view(-1, 1, 1, 1, 1)
        inputs_BCFHW = (1 - level) * latents_BCFHW + level * noise_BCFHW
        if examples.conditions is not None:
            inputs_BCFHW = torch.cat([inputs_BCFHW, examples.conditions.draw(clips, generator)], 1)
        # the flash kernel's backward pass is several times slower than the plain one on a CPU
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            flow_BCFHW = model.velocity(compiled, inputs_BCFHW, sigmas_B, text)
            error_BCFHW = (flow_BCFHW.float() - (noise_BCFHW - latents_BCFHW)).square()
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
