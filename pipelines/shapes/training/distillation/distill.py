"""Distil a Shapes model into a LoRA for a few steps.

`python -m pipelines.shapes.training.distillation.distill MODEL --output FOLDER`

The student learns two things on its own few-step paths. Before anything is decided (above
`UNDECIDED_SIGMA`) it learns the exact answer (`posterior`): a mean that leaves open what the
caption leaves open. Later it learns to go straight to its own end, snapped: the nearest member of
the world that the caption allows. So it commits itself, and few steps suffice.

In a share of the updates NAG is on. Then a member is allowed that the caption allows and that shows
nothing of what the negative prompt names.

An interrupted distillation goes on where it was: a course whose folder stands in the cache is not
trained again, and the course that ran has a checkpoint.
"""

import argparse
from pathlib import Path

import torch

from pipelines.catalog.files.sources import PACKAGED_WEIGHTS
from pipelines.shapes.training.distillation.rollouts import Rollouts
from pipelines.shapes.training.distillation.student import DISTILLATIONS, Student
from pipelines.shapes.training.kept_latents import kept_latents
from pipelines.shapes.training.lesson import cell_weights
from pipelines.shapes.training.models import MODELS
from pipelines.shapes.training.posterior import Posterior
from pipelines.shapes.training.running.arguments import add_running_arguments
from pipelines.shapes.training.running.compute import Compute
from pipelines.shapes.training.running.pace import Budget
from pipelines.shapes.training.running.stage import Running
from pipelines.shapes.training.running.training_log import TrainingLog, plot_losses
from pipelines.shapes.world import ShapesClip, all_clips

UNDECIDED_SIGMA = 0.95  # the first of four steps lies above it


def learn(
    student: Student, posterior: Posterior, clips: list[ShapesClip], running: Running
) -> None:
    """Train the LoRA of a student for its course.

    Args:
        clips: the members of the world, in the order of the posterior.
    """
    distillation = student.distillation
    plain, guided = (
        Rollouts(student, posterior, clips, has_negative=has_negative)
        for has_negative in (False, True)
    )
    for step in running.steps(distillation.name, distillation.num_steps, student.learning):
        is_guided = float(torch.rand((), generator=student.generator)) < distillation.guided_share
        states = (guided if is_guided else plain).take(student.batch_size)
        latents_BCFHW = torch.stack([state.latents for state in states])
        sigmas_B = torch.stack([state.sigma for state in states])
        goals_B = torch.stack([state.goal for state in states])
        allowed_BN = torch.stack([state.allowed for state in states])
        ends_BCFHW = posterior.members[goals_B]
        weights = cell_weights(ends_BCFHW, distillation.shape_weight)
        is_undecided_B = sigmas_B > UNDECIDED_SIGMA
        ends_BCFHW[is_undecided_B] = posterior(
            latents_BCFHW[is_undecided_B], sigmas_B[is_undecided_B], allowed_BN[is_undecided_B]
        ).mean
        level = sigmas_B.view(-1, 1, 1, 1, 1)
        flows_BCFHW = (latents_BCFHW - ends_BCFHW) / level
        text = student.encode([state.caption for state in states])
        with student.guided([state.negative for state in states] if is_guided else None):
            error_BCFHW = student.flow(latents_BCFHW, sigmas_B, text) - flows_BCFHW
            # the error of the ends: that of the flow has no bound where sigma is small
            loss = ((level * error_BCFHW).square() * weights).mean()
            student.update(loss)  # inside the `with`: leaving it changes the strengths in place
        step.log(loss.item())
    student.end()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Distil a Shapes model into a few-step LoRA (15 minutes on a core)."
    )
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument(
        "--weights", type=Path, help="the model's folder (default: the packaged one)"
    )
    parser.add_argument("--output", type=Path, required=True, help="the folder of the LoRA")
    add_running_arguments(parser)
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
    student = Student(model, pipeline, compute)
    log = TrainingLog(output / "train_log.csv")
    budget = Budget(arguments.minutes, {course.name: course.num_steps for course in DISTILLATIONS})
    for course in DISTILLATIONS:
        seconds, folder = budget.seconds_for(course.name), cache / course.name
        student.begin(course)
        if folder.exists():
            student.load(folder)
            continue
        learn(
            student,
            posterior,
            clips,
            Running(log.log_step, compute, seconds, cache / "checkpoints"),
        )
        student.save(folder)
    student.save(output)
    plot_losses(log.path, output / "loss.png")
    print(f"saved {output}")


if __name__ == "__main__":
    main()
