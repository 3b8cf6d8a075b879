"""The lesson of a course: batches of noisy states, and the flows that a transformer learns there.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells, N members.
"""

from dataclasses import dataclass

import torch

from pipelines.shapes.captions import NAMED_SHARES, NAMED_SHARES_WITH_IMAGE, caption
from pipelines.shapes.training.conditions import Conditions
from pipelines.shapes.training.courses import DenoiserTraining
from pipelines.shapes.training.own_paths import OwnPaths
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.text import attribute_targets
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


@dataclass(frozen=True, eq=False)
class Batch:
    """Noisy states and the flow that the model is to learn there.

    Args:
        weights: weights of the cells, of mean 1, (B, 1, F, H, W).
        conditions: further input channels for the first image, (B, C, F, H, W), or None.
    """

    states: torch.Tensor  # (B, C, F, H, W)
    sigmas: torch.Tensor  # (B,)
    flows: torch.Tensor  # (B, C, F, H, W)
    weights: torch.Tensor
    captions: list[str]
    conditions: torch.Tensor | None = None


class Lesson:
    """The batches of a course, drawn one after another.

    Args:
        own_paths: the states that the model itself reaches; None for a course without them.
        posterior: the exact answers; None for a course that learns from single examples.
    """

    def __init__(
        self,
        training: DenoiserTraining,
        examples: Examples,
        generator: torch.Generator,
        posterior: Posterior | None = None,
        own_paths: OwnPaths | None = None,
    ) -> None:
        self._training, self._examples, self._generator = training, examples, generator
        self._posterior, self._own_paths = posterior, own_paths

    def draw(self, batch_size: int) -> Batch:
        """Draw clips, noise and captions; a share of the states is of the model's own paths."""
        num_own = round(batch_size * self._training.own_share) if self._own_paths else 0
        num_clips = batch_size - num_own
        examples, generator = self._examples, self._generator
        rows = torch.randint(len(examples.clips), (num_clips,), generator=generator)
        clips = [examples.clips[row] for row in rows.tolist()]
        latents_BCFHW = examples.latents[rows].float()
        captions = [caption(clip, generator, examples.named_shares) for clip in clips]
        sigmas_B = even_sigmas(num_clips, self._training.flow_shift, generator)
        noise_BCFHW = torch.randn(latents_BCFHW.shape, generator=generator)
        sigmas_B, noise_BCFHW = (t.to(latents_BCFHW.device) for t in (sigmas_B, noise_BCFHW))
        level = _per_clip(sigmas_B)
        states_BCFHW = (1 - level) * latents_BCFHW + level * noise_BCFHW
        if self._posterior is None:
            conditions = examples.conditions and examples.conditions.draw(clips, generator)
            weights = cell_weights(latents_BCFHW, self._training.shape_weight)
            flows = noise_BCFHW - latents_BCFHW
            return Batch(states_BCFHW, sigmas_B, flows, weights, captions, conditions)
        allowed_BN = self._posterior.allowed(attribute_targets(clips, captions))
        if self._own_paths:
            own = self._own_paths.take(num_own)
            states_BCFHW = torch.cat([states_BCFHW, torch.stack([one.latents for one in own])])
            sigmas_B = torch.cat([sigmas_B, torch.stack([one.sigma for one in own])])
            allowed_BN = torch.cat([allowed_BN, torch.stack([one.allowed for one in own])])
            captions = captions + [one.caption for one in own]
        flows, weights = exact_flows(
            self._posterior, states_BCFHW, sigmas_B, allowed_BN, self._training.shape_weight
        )
        return Batch(states_BCFHW, sigmas_B, flows, weights, captions)


def exact_flows(
    posterior: Posterior,
    states_BCFHW: torch.Tensor,
    sigmas_B: torch.Tensor,
    allowed_BN: torch.Tensor,
    shape_weight: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the flows to the exact answers, and the weights of the cells.

    The weight is sigma squared, so that the error of the clean latents counts, which is largest
    where the content is decided. The error of the flow is largest where only traces of noise are
    left, and has no bound where a state of the model's own lies off all members.
    """
    answer = posterior(states_BCFHW, sigmas_B, allowed_BN)
    flows_BCFHW = (states_BCFHW - answer.mean) / _per_clip(sigmas_B)
    weights = cell_weights(posterior.members[answer.likeliest], shape_weight)
    return flows_BCFHW, weights * _per_clip(sigmas_B.square())


def _per_clip(values_B: torch.Tensor) -> torch.Tensor:
    return values_B.view(-1, 1, 1, 1, 1)
