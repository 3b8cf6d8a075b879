"""The few-step paths of a student, with and without a negative prompt.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells, N members.
"""

import torch

from pipelines.shapes.captions import caption
from pipelines.shapes.training.negatives import draw_negatives
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.state_store import State, StateStore
from pipelines.shapes.training.student import Student
from pipelines.shapes.training.text import attribute_targets
from pipelines.shapes.training.trajectory import trajectory
from pipelines.shapes.world import sample_clip


class Rollouts(StateStore):
    """The states of paths that a student takes with the sampler of its pipeline.

    Args:
        has_negative: guide the paths with NAG.
    """

    def __init__(self, student: Student, posterior: Posterior, *, has_negative: bool) -> None:
        super().__init__(student.generator)
        self._student, self._posterior, self._has_negative = student, posterior, has_negative

    @torch.no_grad()
    def _render(self) -> list[State]:
        student, generator = self._student, self.generator
        clips = [sample_clip(generator) for _ in range(student.batch_size)]
        captions, negatives = [caption(clip, generator) for clip in clips], [""] * len(clips)
        named = attribute_targets(clips, captions)
        allowed_BN = self._posterior.allowed(named)
        if self._has_negative:
            negatives, left_BN = draw_negatives(self._posterior, named, generator)
            allowed_BN = allowed_BN & left_BN
        noise = torch.randn(len(clips), *student.model.latent_shape, generator=generator)
        text = student.encode(captions)
        with student.guided(negatives if self._has_negative else None):
            passed, ends = trajectory(
                student.scheduler,
                lambda states, sigmas: student.flow(states, sigmas, text),
                noise.to(student.device),
                self.draw(student.distillation.rollout_steps),
            )
        # at a sigma of 0 the answer is the nearest member that the texts allow
        goals_B = self._posterior(ends, torch.zeros_like(passed[0][1]), allowed_BN).likeliest
        return [
            state
            for latents, sigmas_B in passed
            for state in map(State, latents, sigmas_B, captions, allowed_BN, negatives, goals_B)
        ]
