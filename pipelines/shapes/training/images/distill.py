"""Teach a Shapes image model to draw in four steps, as a LoRA.

The student learns the exact posterior mean (`posterior`) at the states that its own few-step
trajectories pass. In the first step that mean leaves open all that the caption leaves open, so a
negative prompt still has something to decide; in the last it is one member of the world.

Shape suffixes: B images, C latent channels, H and W latent cells.
"""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.shapes.training.images.denoiser import Captions, weighted_error
from pipelines.shapes.training.images.latents import LATENT_SHAPE, ImageText
from pipelines.shapes.training.images.models import ImageModel
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.training_log import LogStep

LORA_RANK = 16
# every linear layer of attention and of the feed-forward, by the names of all three architectures
LORA_MODULES = (
    r".*(to_q|to_k|to_v|to_out\.0|add_[qkv]_proj|to_add_out|net\.0\.proj|net\.2"
    r"|proj_mlp|single_transformer_blocks\.\d+\.proj_out)"
)


@dataclass(frozen=True)
class ImageDistillation:
    """The length and speed of the student's training.

    Args:
        num_rollouts: batches that the student draws; each gives one update per step.
        rollout_steps: numbers of steps to draw a batch in, in turn.
    """

    num_rollouts: int
    rollout_steps: tuple[int, ...] = (4, 4, 3, 4, 6)
    batch_size: int = 64
    learning_rate: float = 2e-3
    shape_weight: float = 6.0
    unpooled_share: float = 0.5
    seed: int = 21

    @property
    def rollouts(self) -> list[int]:
        """Return the number of steps of each rollout."""
        every = self.rollout_steps
        return [every[index % len(every)] for index in range(self.num_rollouts)]

    @property
    def num_updates(self) -> int:
        return sum(self.rollouts)


@dataclass(frozen=True, eq=False)
class Student:
    """A denoiser that learns, and the sampler of its pipeline.

    Args:
        is_half: compute in bfloat16, as in training.
    """

    model: ImageModel
    denoiser: Any
    scheduler: Any
    is_half: bool = True

    def flow(self, states: torch.Tensor, sigmas: torch.Tensor, text: ImageText) -> torch.Tensor:
        # the flash kernel's backward pass is several times slower than the plain one on a CPU
        half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.is_half)
        with sdpa_kernel(SDPBackend.MATH), half:
            return self.model.velocity(self.denoiser, states, sigmas, text).float()

    @torch.no_grad()
    def trajectory(
        self, noise_BCHW: torch.Tensor, text: ImageText, num_steps: int
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the states and sigmas (B,) that the pipeline's sampler passes."""
        sampler = deepcopy(self.scheduler)
        self.model.set_timesteps(sampler, num_steps)
        states: list[tuple[torch.Tensor, torch.Tensor]] = []
        latents_BCHW = noise_BCHW
        # UniPC rounds its sigmas to the timesteps, and the model gets these as its time.
        for timestep in sampler.timesteps:
            sigmas_B = (timestep / sampler.config.num_train_timesteps).repeat(len(noise_BCHW))
            states.append((latents_BCHW, sigmas_B))
            flow_BCHW = self.flow(latents_BCHW, sigmas_B, text)
            latents_BCHW = sampler.step(flow_BCHW, timestep, latents_BCHW, return_dict=False)[0]
        return states


def add_lora(denoiser: Any) -> list[torch.nn.Parameter]:
    """Add a LoRA to the frozen denoiser and return its parameters."""
    denoiser.requires_grad_(requires_grad=False)
    denoiser.add_adapter(
        LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_RANK,
            init_lora_weights="gaussian",
            target_modules=LORA_MODULES,
        )
    )
    denoiser.train()
    return [one for one in denoiser.parameters() if one.requires_grad]


def distil(
    distillation: ImageDistillation,
    model: ImageModel,
    pipeline: Any,
    captions: Captions,
    posterior: Posterior,
    log_step: LogStep,
) -> None:
    """Add a LoRA to the pipeline's denoiser and train it."""
    torch.manual_seed(distillation.seed)
    generator = torch.Generator().manual_seed(distillation.seed)
    student = Student(model, getattr(pipeline, model.denoiser), pipeline.scheduler)
    parameters = add_lora(student.denoiser)
    optimizer = torch.optim.AdamW(
        parameters, lr=distillation.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda update: min((update + 1) / 20, max(0.02, 1 - update / distillation.num_updates)),
    )
    ema = EMAModel(parameters, decay=0.98, use_ema_warmup=True, power=0.75)
    update = 0
    for num_steps in distillation.rollouts:
        named, text = captions.draw(distillation.batch_size, generator, distillation.unpooled_share)
        allowed_BN = posterior.allowed(named)
        noise = torch.randn(distillation.batch_size, *LATENT_SHAPE, generator=generator)
        for states_BCHW, sigmas_B in student.trajectory(noise, text, num_steps):
            ends_BCHW = posterior(states_BCHW, sigmas_B, allowed_BN).mean
            target_BCHW = (states_BCHW - ends_BCHW) / sigmas_B.view(-1, 1, 1, 1).clamp_min(0.01)
            error_B = weighted_error(
                student.flow(states_BCHW, sigmas_B, text),
                target_BCHW,
                ends_BCHW,
                distillation.shape_weight,
            )
            # the error of the clean image: a state of the student may lie far from the noisy
            # members, and the exact flow from there has no bound where sigma is small
            loss = (sigmas_B.square() * error_B).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            ema.step(parameters)
            log_step("distillation", update, loss.item())
            update += 1
    ema.copy_to(parameters)
    student.denoiser.eval()


def save_lora(model: ImageModel, pipeline: Any, folder: Path) -> None:
    """Write the LoRA in the form that diffusers' `load_lora_weights` reads."""
    layers = get_peft_model_state_dict(getattr(pipeline, model.denoiser))
    halves = {name: weight.to(torch.float16).contiguous() for name, weight in layers.items()}
    pipeline.save_lora_weights(folder, **{f"{model.denoiser}_lora_layers": halves})
