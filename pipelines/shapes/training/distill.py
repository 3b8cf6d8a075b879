"""Distil a Shapes model into a LoRA for a few steps.

`python -m pipelines.shapes.training.distill MODEL --output FOLDER`

The student learns the exact answers (`posterior`) at the states that its own few-step paths pass.
In the first steps an answer is a mean that leaves open what the caption leaves open; in the last it
is one member of the world. In every second update NAG is on. Then the answer is the mean of the
members that the caption allows and that show nothing of what the negative prompt names.
"""

import argparse
from pathlib import Path

import torch

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.training.kept_latents import kept_latents
from pipelines.shapes.training.lesson import exact_flows
from pipelines.shapes.training.models import MODELS
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.rollouts import Rollouts
from pipelines.shapes.training.running.compute import Compute
from pipelines.shapes.training.running.pace import Budget
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.running.training_log import TrainingLog, plot_losses
from pipelines.shapes.training.student import Distillation, Student
from pipelines.shapes.world import all_clips

STAGE = "distillation"


def learn(student: Student, posterior: Posterior, running: Running) -> None:
    """Train the LoRA of a student; every second update has NAG on."""
    distillation = student.distillation
    plain, guided = (
        Rollouts(student, posterior, has_negative=has_negative) for has_negative in (False, True)
    )
    for step in running.steps(STAGE, distillation.num_steps, student.learning):
        is_guided = step.number % 2 == 1
        states = (guided if is_guided else plain).take(student.batch_size)
        latents_BCFHW = torch.stack([state.latents for state in states])
        sigmas_B = torch.stack([state.sigma for state in states])
        flows_BCFHW, weights = exact_flows(
            posterior,
            latents_BCFHW,
            sigmas_B,
            torch.stack([state.allowed for state in states]),
            distillation.shape_weight,
        )
        text = student.encode([state.caption for state in states])
        with student.guided([state.negative for state in states] if is_guided else None):
            error_BCFHW = student.flow(latents_BCFHW, sigmas_B, text) - flows_BCFHW
            loss = (error_BCFHW.square() * weights).mean()
            student.update(loss)  # inside the `with`: leaving it changes the strengths in place
        step.log(loss.item())


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Distil a Shapes model into a few-step LoRA (15 minutes on a core)."
    )
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument(
        "--weights", type=Path, help="the model's folder (default: the packaged one)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder of the LoRA")
    parser.add_argument(
        "--cache",
        type=Path,
        help="folder for encoded clips and checkpoints (default: OUTPUT.cache)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU if there is one (default: auto)",
    )
    parser.add_argument("--minutes", type=float, help="time for the training (default: all steps)")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    model, compute = MODELS[arguments.model], Compute.on(arguments.device)
    output: Path = arguments.output
    cache: Path = arguments.cache or output.with_suffix(".cache")
    pipeline = model.pipeline_class.from_pretrained(
        arguments.weights or PACKAGED_WEIGHTS / model.name,
        dtype=torch.float32,
        use_safetensors=True,
    )
    clips = all_clips()
    latents_path = cache / "latents-lattice-all.safetensors"
    latents = kept_latents(model, latents_path, pipeline.vae, clips, compute)
    posterior = Posterior(latents.to(compute.device), clips)
    student = Student(model, pipeline, Distillation(), compute)
    log = TrainingLog(output / "train_log.csv")
    seconds = Budget(arguments.minutes, {STAGE: 1.0}).seconds_for(STAGE)
    learn(student, posterior, Running(log.log_step, compute, seconds, cache / "checkpoints"))
    student.save(output)
    plot_losses(log.path, output / "loss.png")
    print(f"saved {output}")


if __name__ == "__main__":
    main()
