"""The training loop of the Shapes autoencoders, and its batches of crops and whole clips.

`wan` and `ltx` decide each architecture and its loss.
Shape suffixes: N clips, B in a batch, C channels, T frames, H and W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pipelines.shapes.training.running.checkpoints import Learning
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.world import NUM_FRAMES, SIZE_PX

# from the finished part of the stage to the loss to minimise and the part of it to log
StepLoss = Callable[[float], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class AutoencoderTraining:
    """The length and speed of the training of a part of an autoencoder.

    Args:
        stage: name in the log.
        full_share: the last part of the steps, which sees whole clips instead of crops, for the
            borders of the frame.
        fan_in: inputs of the layers that learn at `learning_rate`. Layers with more inputs learn
            more slowly, layers with fewer faster, up to `max_learning_rate`. None: all layers learn
            alike.
    """

    stage: str
    num_steps: int
    full_share: float
    learning_rate: float
    batch_size: int = 8
    fan_in: int | None = None
    max_learning_rate: float = 2e-3
    seed: int = 0

    def is_full(self, progress: float) -> bool:
        return progress >= 1 - self.full_share


def fit(
    training: AutoencoderTraining,
    module: torch.nn.Module,
    loss: StepLoss,
    generator: torch.Generator,
    running: Running,
) -> None:
    """Minimise `loss` in place.

    Args:
        generator: the source of chance of `loss`.
    """
    parameters = list(module.parameters())
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(_learning_rate(training, parameter), []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": group, "lr": rate} for rate, group in groups.items()],
        betas=(0.9, 0.95),
        weight_decay=0.0,
    )
    learning = Learning(module, [optimizer], generator)
    for step in running.steps(training.stage, training.num_steps, learning):
        total, logged = loss(step.progress)
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step.log(logged.item())


def _learning_rate(training: AutoencoderTraining, parameter: torch.nn.Parameter) -> float:
    if training.fan_in is None:
        return training.learning_rate
    fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
    return min(training.max_learning_rate, training.learning_rate * training.fan_in / fan_in)


def random_crops(
    clips_NCTHW: torch.Tensor,
    num_crops: int,
    crop_px: int,
    crop_frames: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Draw crops in space and time, (B, C, T, H, W) in -1..1; few show the background alone."""
    crops: list[torch.Tensor] = []
    while len(crops) < num_crops:
        clip, first, top, left = (
            int(torch.randint(limit, (), generator=generator))
            for limit in (
                len(clips_NCTHW),
                NUM_FRAMES - crop_frames + 1,
                SIZE_PX - crop_px + 1,
                SIZE_PX - crop_px + 1,
            )
        )
        crop = clips_NCTHW[
            clip, :, first : first + crop_frames, top : top + crop_px, left : left + crop_px
        ]
        crop = crop.float() / 127.5 - 1
        if crop.std(dim=(1, 2, 3)).mean() > 0.02 or torch.rand((), generator=generator) < 0.05:
            crops.append(crop)
    return torch.stack(crops)


def random_clips(
    clips_NCTHW: torch.Tensor, num_clips: int, generator: torch.Generator
) -> torch.Tensor:
    """Draw a batch of whole clips, (B, C, T, H, W) in -1..1."""
    return (
        clips_NCTHW[torch.randint(len(clips_NCTHW), (num_clips,), generator=generator)].float()
        / 127.5
        - 1
    )


def picture_loss(decoded_BCTHW: torch.Tensor, video_BCTHW: torch.Tensor) -> torch.Tensor:
    difference = decoded_BCTHW - video_BCTHW
    return difference.abs().mean() + difference.square().mean()
