"""The few-step paths of a student, with and without a negative prompt.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells, N members.
"""

from typing import NamedTuple

import torch

from pipelines.shapes.captions import caption
from pipelines.shapes.training.distillation.negatives import draw_negatives
from pipelines.shapes.training.distillation.student import Student
from pipelines.shapes.training.paths.state_store import StateStore
from pipelines.shapes.training.paths.trajectory import trajectory
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.text import EncodedCaptions, attribute_targets
from pipelines.shapes.world import ShapesClip, sample_clip


class State(NamedTuple):
    """A noisy clip, with its texts and the end that it shall reach."""

    latents: torch.Tensor  # (C, F, H, W)
    sigma: torch.Tensor  # ()
    caption: str
    negative: str
    allowed: torch.Tensor  # (N,) bool, the members that the texts allow
    goal: torch.Tensor  # (), the member that is nearest to the end of the path


class Rollouts(StateStore[State]):
    """The states of paths that a student takes with the sampler of its pipeline.

    Args:
        clips: the members of the world, in the order of the posterior.
        has_negative: guide the paths with NAG.
    """

    def __init__(
        self,
        student: Student,
        posterior: Posterior,
        clips: list[ShapesClip],
        *,
        has_negative: bool,
    ) -> None:
        super().__init__(student.generator)
        self._student, self._posterior, self._has_negative = student, posterior, has_negative
        self._clips = clips

    @torch.no_grad()
    def _render(self) -> list[State]:
        student, generator = self._student, self.generator
        clips = [sample_clip(generator) for _ in range(student.batch_size)]
        captions, negatives = [caption(clip, generator) for clip in clips], [""] * len(clips)
        named = attribute_targets(clips, captions)
        allowed_BN = self._posterior.allowed(named)
        noise = torch.randn(len(clips), *student.model.latent_shape, generator=generator)
        noise = noise.to(student.device)
        num_steps = self.draw(student.distillation.rollout_steps)
        text = student.encode(captions)
        passed, goals_B = self._walk(text, noise, num_steps, allowed_BN)
        if self._has_negative:
            plain_ends = [self._clips[index] for index in goals_B.tolist()]
            negatives, left_BN = draw_negatives(self._posterior, named, plain_ends, generator)
            allowed_BN = allowed_BN & left_BN
            with student.guided(negatives):
                passed, goals_B = self._walk(text, noise, num_steps, allowed_BN)
        return [
            state
            for latents, sigmas_B in passed
            for state in map(State, latents, sigmas_B, captions, negatives, allowed_BN, goals_B)
        ]

    def _walk(
        self, text: EncodedCaptions, noise: torch.Tensor, num_steps: int, allowed_BN: torch.Tensor
    ) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
        """Return the states and sigmas of a path, and the nearest allowed members to its ends."""
        student = self._student
        passed, ends = trajectory(
            student.scheduler,
            lambda states, sigmas: student.flow(states, sigmas, text),
            noise,
            num_steps,
        )
        # at a sigma of 0 the answer is the nearest member that the texts allow
        return passed, self._posterior(ends, torch.zeros_like(passed[0][1]), allowed_BN).likeliest
