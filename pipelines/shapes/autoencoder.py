"""How the Shapes models' video autoencoders learn: from crops of clips, and at last from whole clips.

Decides the training. The layouts, and what each is trained for beside the picture, are in `wan` and `ltx`.
Shapes of tensors: N clips or B in a batch, C channels, T frames, H and W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipelines.shapes.training_log import LogStep
from pipelines.shapes.world import NUM_FRAMES, SIZE_PX, render_uint8, sample_clip

# of the autoencoder and a batch of videos in -1..1: the loss to descend, and the picture's part of it, which is logged
AutoencoderLoss = Callable[[torch.Tensor, torch.Generator], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class AutoencoderTraining:
    """How long and how fast an autoencoder learns.

    Args:
        num_full_steps: the last steps see whole clips instead of crops, for the frame's borders.
        num_clips: drawn once; crops are drawn afresh.
        anywhere_every: each so many-th clip is of any size, place and speed; the others are members of the world.
        min_crop_std: crops of less contrast are mostly left out: the plain background is soon learnt.
    """

    num_steps: int
    num_full_steps: int
    learning_rate: float
    num_clips: int
    anywhere_every: int
    batch_size: int = 8
    crop_px: int = 32
    crop_frames: int = 9
    min_crop_std: float = 0.02
    max_gradient_norm: float = 1.0
    is_bfloat16: bool = False
    seed: int = 0


def training_clips(training: AutoencoderTraining, generator: torch.Generator) -> torch.Tensor:
    """(N, C, T, H, W) uint8."""
    return render_uint8(
        [sample_clip(generator, anywhere=index % training.anywhere_every == 0) for index in range(training.num_clips)]
    )


def random_crops(clips_NCTHW: torch.Tensor, training: AutoencoderTraining, generator: torch.Generator) -> torch.Tensor:
    """A batch of crops in space and time, (B, C, T, H, W) in -1..1; few of them of the plain background alone."""
    crops: list[torch.Tensor] = []
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
        if crop.std(dim=(1, 2, 3)).mean() > training.min_crop_std or torch.rand((), generator=generator) < 0.05:
            crops.append(crop)
    return torch.stack(crops)


def random_clips(clips_NCTHW: torch.Tensor, batch_size: int, generator: torch.Generator) -> torch.Tensor:
    """A batch of whole clips, (B, C, T, H, W) in -1..1."""
    return clips_NCTHW[torch.randint(len(clips_NCTHW), (batch_size,), generator=generator)].float() / 127.5 - 1


def picture_loss(decoded_BCTHW: torch.Tensor, video_BCTHW: torch.Tensor) -> torch.Tensor:
    difference = decoded_BCTHW - video_BCTHW
    return difference.abs().mean() + difference.square().mean()


def fit_autoencoder(
    training: AutoencoderTraining, autoencoder: torch.nn.Module, loss: AutoencoderLoss, log_step: LogStep
) -> torch.Generator:
    """Trains in place.

    Returns:
        The generator, for what is drawn afterwards.
    """
    generator = torch.Generator().manual_seed(training.seed)
    optimizer = torch.optim.AdamW(
        autoencoder.parameters(), lr=training.learning_rate, betas=(0.9, 0.95), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, total_steps=training.num_steps, pct_start=0.05, final_div_factor=300
    )
    clips_NCTHW = training_clips(training, generator)
    autoencoder.train()
    for step in range(training.num_steps):
        if step < training.num_steps - training.num_full_steps:
            video_BCTHW = random_crops(clips_NCTHW, training, generator)
        else:
            video_BCTHW = random_clips(clips_NCTHW, training.batch_size // 2, generator)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=training.is_bfloat16):
            total, picture = loss(video_BCTHW, generator)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(autoencoder.parameters(), training.max_gradient_norm)
        optimizer.step()
        schedule.step()
        log_step("autoencoder", step, picture.item())
    autoencoder.eval()
    return generator
