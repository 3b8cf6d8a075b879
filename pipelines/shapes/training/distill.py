"""Distil a Shapes model's guidance and steps into a LoRA for a few steps.

`python -m pipelines.shapes.training.distill MODEL`

The student learns two things on its own few-step trajectories. From states that have decided
nothing yet (above `UNDECIDED_SIGMA`) it learns the teacher's flow under classifier-free guidance,
so that attributes which the caption leaves open stay open. From later states it learns to go
straight to its own end, snapped: the nearest member of the world that the caption allows
(`posterior`, at a sigma of 0). The world is known exactly, so the student does not copy the
teacher's blurred outlines.

Without the teacher's half, or after long training, clips are cleaner still. But then the noise
alone decides the open attributes, and NAG can hardly change shape, motion or background.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS, model_paths
from pipelines.catalog.model_yaml import load_model_config
from pipelines.shapes.captions import caption
from pipelines.shapes.training.denoiser import world_latents
from pipelines.shapes.training.models import MODELS
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.training_log import LogStep, TrainingLog, plot_losses
from pipelines.shapes.training.student import Batch, Distillation, Student
from pipelines.shapes.training.text import attribute_targets
from pipelines.shapes.world import ShapesClip, all_clips, sample_clip

UNDECIDED_SIGMA = 0.95  # the first of four steps lies above it


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


def learn_rollouts(student: Student, posterior: Posterior, log_step: LogStep) -> None:
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
        allowed_BN = posterior.allowed(attribute_targets(clips, captions))
        nearest_B = posterior(ends, torch.zeros(len(clips)), allowed_BN).likeliest
        snapped_BCFHW = posterior.members[nearest_B]
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
    posterior = Posterior(torch.cat(list(world_latents(model, pipeline.vae))), all_clips())
    guidance_scale = load_model_config(model_paths()[model.name]).sampling.guidance_scale
    student = Student(model, pipeline, guidance_scale, distillation)
    learn_rollouts(student, posterior, log.log_step)
    student.save(arguments.output)
    plot_losses(log.path, arguments.output / "loss.png")
    print(f"saved {arguments.output}")


if __name__ == "__main__":
    main()
