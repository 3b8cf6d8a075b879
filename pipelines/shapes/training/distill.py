"""Distil a Shapes model's guidance and steps into a LoRA for a few steps.

`python -m pipelines.shapes.training.distill MODEL`

The student learns two things on its own few-step trajectories. From states that have decided
nothing yet (above `UNDECIDED_SIGMA`) it learns the teacher's flow under classifier-free guidance,
so that attributes which the caption leaves open stay open. From later states it learns to go
straight to its own end, snapped: the nearest member of the world that the caption allows
(`snapping`). The world is known exactly, so the student does not copy the teacher's blurred
outlines.

Without the teacher's half, or after long training, clips are cleaner still. But then the noise
alone decides the open attributes, and NAG can hardly change shape, motion or background.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.catalog.model_config import load_model_config
from pipelines.catalog.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.shapes.captions import caption
from pipelines.shapes.training.denoiser import cell_weights, world_latents
from pipelines.shapes.training.models import MODELS, ShapesModel
from pipelines.shapes.training.snapping import Snap
from pipelines.shapes.training.text import MAX_TOKENS, EncodedCaptions, encode_captions
from pipelines.shapes.training.training_log import LogStep, TrainingLog, plot_losses
from pipelines.shapes.world import ShapesClip, sample_clip

LORA_RANK = 32
UNDECIDED_SIGMA = 0.95  # the first of four steps lies above it
# every linear layer of attention and of the feed-forward, by the names that Wan and LTX share
LORA_MODULES = r".*\.(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2)"


@dataclass(frozen=True)
class Distillation:
    """The length and speed of the student's training.

    Args:
        num_rollouts: batches that the student renders; each gives one update per step.
        rollout_steps: numbers of steps to render a batch in, drawn evenly.
    """

    num_rollouts: int = 50  # more: cleaner clips, but open attributes are harder to steer
    rollout_steps: tuple[int, ...] = (4, 4, 4, 2, 8)
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    shape_weight: float = 6.0
    seed: int = 21


@dataclass(frozen=True, eq=False)
class Batch:
    """States, and the known end that the student shall reach from each."""

    states: torch.Tensor  # (B, C, F, H, W)
    sigmas: torch.Tensor  # (B,)
    ends: torch.Tensor  # (B, C, F, H, W)
    text: EncodedCaptions


class Student:
    """A transformer with a LoRA that learns, and its teacher: the same transformer without.

    Args:
        guidance_scale: classifier-free guidance of the teacher.
    """

    def __init__(
        self, model: ShapesModel, pipeline: Any, guidance_scale: float, distillation: Distillation
    ) -> None:
        self.model, self.pipeline, self.distillation = model, pipeline, distillation
        self.guidance_scale = guidance_scale
        torch.manual_seed(distillation.seed)
        transformer = pipeline.transformer
        self._teacher = deepcopy(transformer).eval()
        transformer.requires_grad_(requires_grad=False)
        config = LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_RANK,
            init_lora_weights="gaussian",
            target_modules=LORA_MODULES,
        )
        transformer.add_adapter(config)
        transformer.train()
        self.parameters = [
            parameter for parameter in transformer.parameters() if parameter.requires_grad
        ]
        self._compiled = torch.compile(transformer)
        self.scheduler = pipeline.scheduler
        self.generator = torch.Generator().manual_seed(distillation.seed)
        mean_steps = sum(distillation.rollout_steps) / len(distillation.rollout_steps)
        num_updates = round(distillation.num_rollouts * mean_steps)
        self._optimizer = torch.optim.AdamW(
            self.parameters, lr=distillation.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer,
            lambda update: min((update + 1) / 50, max(0.02, 1 - update / num_updates)),
        )
        self.ema = EMAModel(self.parameters, decay=0.99, use_ema_warmup=True, power=0.75)

    def encode(self, captions: list[str]) -> EncodedCaptions:
        with torch.no_grad():
            return encode_captions(
                self.pipeline.tokenizer, self.pipeline.text_encoder, captions, MAX_TOKENS
            )

    def flow(
        self, states_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions
    ) -> torch.Tensor:
        # the flash kernel's backward pass is several times slower than the plain one on a CPU
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model.velocity(self._compiled, states_BCFHW, sigmas_B, text).float()

    @torch.no_grad()
    def teachers_ends(
        self, states_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, captions: list[str]
    ) -> torch.Tensor:
        """Return the ends that the teacher's guided flow leads to, straight on."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prompted, unprompted = (
                self.model.velocity(
                    self._teacher, states_BCFHW, sigmas_B, self.encode(words)
                ).float()
                for words in (captions, [""] * len(captions))
            )
        flow_BCFHW = unprompted + self.guidance_scale * (prompted - unprompted)
        return states_BCFHW - sigmas_B.view(-1, 1, 1, 1, 1) * flow_BCFHW

    def update(self, batch: Batch) -> float:
        """Take one optimisation step and return the loss before it.

        The error of the flow is weighted with sigma: a state of the student does not lie between
        noise and end, and the flow from it to the end has no bound where sigma is small.
        """
        level = batch.sigmas.view(-1, 1, 1, 1, 1)
        flow_BCFHW = (batch.states - batch.ends) / level
        error_BCFHW = (
            level * (self.flow(batch.states, batch.sigmas, batch.text) - flow_BCFHW).square()
        )
        loss = (error_BCFHW * cell_weights(batch.ends, self.distillation.shape_weight)).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self.ema.step(self.parameters)
        return loss.item()

    def save(self, folder: Path) -> None:
        """Write the averaged weights in the form that diffusers' `load_lora_weights` reads."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        layers = get_peft_model_state_dict(self.pipeline.transformer)
        halves = {name: weight.to(torch.bfloat16).contiguous() for name, weight in layers.items()}
        self.pipeline.save_lora_weights(folder, transformer_lora_layers=halves)
        self.ema.restore(self.parameters)


# From states (B, C, F, H, W) and sigmas (B,).
Flow = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def trajectory(
    scheduler: Any, flow: Flow, noise_BCFHW: torch.Tensor, num_steps: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """Return the states and sigmas (B,) that a sampler passes, and its end."""
    is_euler = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    sampler: Any = scheduler
    if is_euler:  # as LTXPipeline does
        sampler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist())
    else:
        sampler.set_timesteps(num_steps)
    states: list[tuple[torch.Tensor, torch.Tensor]] = []
    latents = noise_BCFHW
    # UniPC rounds its sigmas to the timesteps, and the model gets these as its time.
    for timestep in sampler.timesteps:
        sigmas = (timestep / sampler.config.num_train_timesteps).expand(len(noise_BCFHW)).clone()
        states.append((latents, sigmas))
        latents = sampler.step(flow(latents, sigmas), timestep, latents, return_dict=False)[0]
    return states, latents


def captioned(student: Student) -> tuple[list[ShapesClip], list[str], torch.Tensor]:
    """Draw a batch of clips, their captions, and noise to render them from."""
    clips = [sample_clip(student.generator) for _ in range(student.distillation.batch_size)]
    captions = [caption(clip, student.generator) for clip in clips]
    return (
        clips,
        captions,
        torch.randn(len(clips), *student.model.latent_shape, generator=student.generator),
    )


def learn_rollouts(
    student: Student, snap: Snap, members_NCFHW: torch.Tensor, log_step: LogStep
) -> None:
    distillation = student.distillation
    update = 0
    for _ in range(distillation.num_rollouts):
        choice = int(
            torch.randint(len(distillation.rollout_steps), (), generator=student.generator)
        )
        clips, captions, noise = captioned(student)
        text = student.encode(captions)
        with torch.no_grad():
            states, ends = trajectory(
                student.scheduler,
                lambda states, sigmas, text=text: student.flow(states, sigmas, text),
                noise,
                distillation.rollout_steps[choice],
            )
        snapped_BCFHW = members_NCFHW[snap(ends, clips, captions)].float()
        # each update draws one step per clip, so that all steps are learnt alike
        steps_BS = torch.stack(
            [torch.randperm(len(states), generator=student.generator) for _ in clips]
        )
        every_SBCFHW, sigmas_S = (
            torch.stack([state for state, _ in states]),
            torch.stack([s[0] for _, s in states]),
        )
        for steps_B in steps_BS.T:
            states_BCFHW, sigmas_B = (
                every_SBCFHW[steps_B, torch.arange(len(clips))],
                sigmas_S[steps_B],
            )
            ends_BCFHW = snapped_BCFHW.clone()
            if len(rows := (sigmas_B > UNDECIDED_SIGMA).nonzero().flatten()):
                words = [captions[row] for row in rows.tolist()]
                ends_BCFHW[rows] = student.teachers_ends(states_BCFHW[rows], sigmas_B[rows], words)
            log_step(
                "distillation",
                update,
                student.update(Batch(states_BCFHW, sigmas_B, ends_BCFHW, text)),
            )
            update += 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Distil a Shapes model into a few-step LoRA (30 minutes on a core)."
    )
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument(
        "--weights", type=Path, help="the teacher's folder (default: the packaged one)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder of the LoRA")
    arguments = parser.parse_args()
    model, distillation = MODELS[arguments.model], Distillation()
    pipeline = model.pipeline_class.from_pretrained(
        arguments.weights or PACKAGED_WEIGHTS / model.name,
        dtype=torch.float32,
        use_safetensors=True,
    )
    log = TrainingLog(arguments.output / "train_log.csv")
    members_NCFHW = torch.cat(list(world_latents(model, pipeline.vae)))
    snap = Snap(members_NCFHW)
    guidance_scale = load_model_config(model_paths()[model.name]).sampling.guidance_scale
    student = Student(model, pipeline, guidance_scale, distillation)
    learn_rollouts(student, snap, members_NCFHW, log.log_step)
    student.save(arguments.output)
    plot_losses(log.path, arguments.output / "loss.png")
    print(f"saved {arguments.output}")


if __name__ == "__main__":
    main()
