"""The few-step paths of a student, with and without a negative prompt.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells, N members.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from pipelines.shapes.captions import caption
from pipelines.shapes.training.negatives import draw_negatives
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.state_store import State, StateStore
from pipelines.shapes.training.student import Student
from pipelines.shapes.training.text import attribute_targets
from pipelines.shapes.world import sample_clip

# From states (B, C, F, H, W) and sigmas (B,).
Flow = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def trajectory(
    scheduler: Any, flow: Flow, noise_BCFHW: torch.Tensor, num_steps: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Return the states and sigmas (B,) that a sampler passes, and its end."""
    sampler = deepcopy(scheduler)
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):  # as LTXPipeline does
        sampler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist())
    else:
        sampler.set_timesteps(num_steps)
    states: list[tuple[torch.Tensor, torch.Tensor]] = []
    latents = noise_BCFHW
    # UniPC rounds its sigmas to the timesteps, and the model gets these as its time.
    for timestep in sampler.timesteps:
        sigmas = (timestep / sampler.config.num_train_timesteps).expand(len(noise_BCFHW)).clone()
        states.append((latents, sigmas.to(latents.device)))
        latents = sampler.step(flow(*states[-1]), timestep, latents, return_dict=False)[0]
    return states, latents


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
            passed, _ = trajectory(
                student.scheduler,
                lambda states, sigmas: student.flow(states, sigmas, text),
                noise.to(student.device),
                self.draw(student.distillation.rollout_steps),
            )
        return [
            state
            for latents, sigmas_B in passed
            for state in map(State, latents, sigmas_B, captions, allowed_BN, negatives)
        ]
