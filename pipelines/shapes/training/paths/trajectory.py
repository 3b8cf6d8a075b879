"""The path that a pipeline's sampler takes from noise to a clip.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

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
