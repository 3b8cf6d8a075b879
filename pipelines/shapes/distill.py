"""Distils a Shapes model's guidance and steps into a LoRA for a few steps: `python -m pipelines.shapes.distill MODEL`.

Two courses. In the first one the teacher, under classifier-free guidance, renders clips from noise, and the student
learns the straight flow from each noise to what came of it (rectified flow, arXiv 2209.03003). In the second one the
student learns on its own few-step trajectories: from every state that it came through, straight to where it ended.

Ends are snapped: what counts as the end is a member of the world near to it, among those that the caption allows
(`snapping`). The world is known exactly, so the student is not held to its teacher's blurred outlines.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from torch.nn.attention import SDPBackend, sdpa_kernel

from pipelines.config import PACKAGED_WEIGHTS, load_model_config, model_paths
from pipelines.shapes.captions import caption
from pipelines.shapes.denoiser import cell_weights, even_sigmas, world_latents
from pipelines.shapes.models import MODELS, ShapesModel
from pipelines.shapes.snapping import Snap
from pipelines.shapes.text import MAX_TOKENS, EncodedCaptions, encode_captions
from pipelines.shapes.training_log import LogStep, TrainingLog, plot_losses
from pipelines.shapes.world import ShapesClip, sample_clip

LORA_RANK = 32
UNDECIDED_SIGMA = 0.85  # above it a state has decided nothing yet that could not still become something rarer
# every linear layer of attention and of the feed-forward, by the names that Wan and LTX share
LORA_MODULES = r".*\.(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2)"


@dataclass(frozen=True)
class Distillation:
    """How long and how fast the student learns.

    Args:
        teacher_steps: of the teacher, under its model's own guidance_scale.
        num_pairs: clips that the teacher renders.
        num_pair_updates: of the first course.
        num_rollouts: batches that the student renders in the second course; each gives an update for every step.
        rollout_steps: how many steps a batch is rendered in, drawn evenly.
    """

    teacher_steps: int = 8
    num_pairs: int = 2048
    num_pair_updates: int = 300
    num_rollouts: int = 220
    rollout_steps: tuple[int, ...] = (4, 4, 4, 2, 8)
    batch_size: int = 64
    learning_rate: float = 2e-3
    rollout_learning_rate: float = 1.2e-3
    shape_weight: float = 6.0
    flow_shift: float = 3.0
    seed: int = 21


@dataclass(frozen=True, eq=False)
class Batch:
    """States that the student is to leave for known ends."""

    states: torch.Tensor  # (B, C, F, H, W)
    sigmas: torch.Tensor  # (B,)
    ends: torch.Tensor  # (B, C, F, H, W)
    text: EncodedCaptions


class Student:
    """A transformer with a LoRA that learns; the weights beneath stay as they are."""

    def __init__(self, model: ShapesModel, pipeline: Any, distillation: Distillation) -> None:
        self.model, self.pipeline, self.distillation = model, pipeline, distillation
        torch.manual_seed(distillation.seed)
        transformer = pipeline.transformer
        transformer.requires_grad_(requires_grad=False)
        config = LoraConfig(
            r=LORA_RANK, lora_alpha=LORA_RANK, init_lora_weights="gaussian", target_modules=LORA_MODULES
        )
        transformer.add_adapter(config)
        transformer.train()
        self.parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
        self._compiled = torch.compile(transformer)
        self.scheduler = pipeline.scheduler
        self.generator = torch.Generator().manual_seed(distillation.seed)
        self._begin(distillation.learning_rate, distillation.num_pair_updates)

    def encode(self, captions: list[str]) -> EncodedCaptions:
        with torch.no_grad():
            return encode_captions(self.pipeline.tokenizer, self.pipeline.text_encoder, captions, MAX_TOKENS)

    def flow(self, states_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions) -> torch.Tensor:
        # the flash kernel's backward pass is several times slower than the plain one on a CPU
        with sdpa_kernel(SDPBackend.MATH), torch.autocast("cpu", dtype=torch.bfloat16):
            return self.model.velocity(self._compiled, states_BCFHW, sigmas_B, text).float()

    def begin_rollouts(self) -> None:
        mean_steps = sum(self.distillation.rollout_steps) / len(self.distillation.rollout_steps)
        self._begin(self.distillation.rollout_learning_rate, round(self.distillation.num_rollouts * mean_steps))

    def _begin(self, learning_rate: float, num_updates: int) -> None:
        self._optimizer = torch.optim.AdamW(self.parameters, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda update: min((update + 1) / 50, max(0.02, 1 - update / num_updates))
        )
        self.ema = EMAModel(self.parameters, decay=0.99, use_ema_warmup=True, power=0.75)

    def update(self, batch: Batch) -> float:
        """One step of descent; returns the loss before it.

        The error of the flow is weighted with sigma: a state of the student's own does not lie between noise and end,
        and the flow from it to the end has no bound where sigma is small.
        """
        level = batch.sigmas.view(-1, 1, 1, 1, 1)
        flow_BCFHW = (batch.states - batch.ends) / level
        error_BCFHW = level * (self.flow(batch.states, batch.sigmas, batch.text) - flow_BCFHW).square()
        loss = (error_BCFHW * cell_weights(batch.ends, self.distillation.shape_weight)).mean()
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self._optimizer.step()
        self._schedule.step()
        self.ema.step(self.parameters)
        return loss.item()

    def save(self, folder: Path) -> None:
        """Writes the averaged weights as diffusers' `load_lora_weights` reads them."""
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        layers = get_peft_model_state_dict(self.pipeline.transformer)
        halves = {name: weight.to(torch.bfloat16).contiguous() for name, weight in layers.items()}
        self.pipeline.save_lora_weights(folder, transformer_lora_layers=halves)
        self.ema.restore(self.parameters)


Flow = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # of states (B, C, F, H, W) and sigmas (B,)


def trajectory(
    scheduler: Any, flow: Flow, noise_BCFHW: torch.Tensor, num_steps: int
) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], torch.Tensor]:
    """The states and sigmas (B,) that a sampler comes through, and where it ends."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):  # as LTXPipeline does
        scheduler.set_timesteps(sigmas=torch.linspace(1, 1 / num_steps, num_steps).tolist())
    else:
        scheduler.set_timesteps(num_steps)
    states: list[tuple[torch.Tensor, torch.Tensor]] = []
    latents = noise_BCFHW
    for timestep in scheduler.timesteps:  # UniPC rounds its sigmas for them, and they are what the model is told
        sigmas = (timestep / scheduler.config.num_train_timesteps).expand(len(noise_BCFHW)).clone()
        states.append((latents, sigmas))
        latents = scheduler.step(flow(latents, sigmas), timestep, latents, return_dict=False)[0]
    return states, latents


def captioned(student: Student) -> tuple[list[ShapesClip], list[str], torch.Tensor]:
    """A batch of clips, captions of them, and noise to render these from."""
    clips = [sample_clip(student.generator) for _ in range(student.distillation.batch_size)]
    captions = [caption(clip, student.generator) for clip in clips]
    return clips, captions, torch.randn(len(clips), *student.model.latent_shape, generator=student.generator)


@torch.no_grad()
def render_pairs(
    student: Student, snap: Snap, guidance_scale: float
) -> list[tuple[torch.Tensor, torch.Tensor, list[str]]]:
    """Batches of noises, of the indices of their ends, and captions, as the teacher renders them.

    A LoRA begins as nothing: until it has learnt, the student is its teacher.
    """
    distillation = student.distillation
    empty = student.encode([""] * distillation.batch_size)
    pairs: list[tuple[torch.Tensor, torch.Tensor, list[str]]] = []
    while len(pairs) * distillation.batch_size < distillation.num_pairs:
        clips, captions, noise = captioned(student)
        text = student.encode(captions)

        def guided(states: torch.Tensor, sigmas: torch.Tensor, text: EncodedCaptions = text) -> torch.Tensor:
            conditional, unconditional = student.flow(states, sigmas, text), student.flow(states, sigmas, empty)
            return unconditional + guidance_scale * (conditional - unconditional)

        _, ends = trajectory(student.scheduler, guided, noise, distillation.teacher_steps)
        pairs.append((noise, snap(ends, clips, captions)[1], captions))
        print(f"teacher      clip {len(pairs) * len(captions):>6} of {distillation.num_pairs}", flush=True)
    return pairs


def learn_pairs(
    student: Student,
    pairs: list[tuple[torch.Tensor, torch.Tensor, list[str]]],
    members_NCFHW: torch.Tensor,
    log_step: LogStep,
) -> None:
    """The first course: the straight flow from each noise to its end."""
    distillation = student.distillation
    noises, ends = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])
    captions = [words for pair in pairs for words in pair[2]]
    for update in range(distillation.num_pair_updates):
        rows = torch.randint(len(captions), (distillation.batch_size,), generator=student.generator)
        ends_BCFHW = members_NCFHW[ends[rows]].float()
        sigmas_B = even_sigmas(distillation.batch_size, distillation.flow_shift, student.generator)
        sigmas_B[: distillation.batch_size // 8] = 1.0  # the first step of every schedule
        level = sigmas_B.view(-1, 1, 1, 1, 1)
        states_BCFHW = (1 - level) * ends_BCFHW + level * noises[rows]
        text = student.encode([captions[row] for row in rows.tolist()])
        log_step("distillation, pairs", update, student.update(Batch(states_BCFHW, sigmas_B, ends_BCFHW, text)))


def learn_rollouts(student: Student, snap: Snap, members_NCFHW: torch.Tensor, log_step: LogStep) -> None:
    """The second course: from each state of the student's own trajectories straight to their ends."""
    distillation = student.distillation
    student.begin_rollouts()
    update = 0
    for _ in range(distillation.num_rollouts):
        choice = int(torch.randint(len(distillation.rollout_steps), (), generator=student.generator))
        clips, captions, noise = captioned(student)
        text = student.encode(captions)
        with torch.no_grad():
            states, ends = trajectory(
                student.scheduler,
                lambda states, sigmas, text=text: student.flow(states, sigmas, text),
                noise,
                distillation.rollout_steps[choice],
            )
        nearest_B, fair_B = snap(ends, clips, captions)
        # each update takes a step of its own from every clip, so that no step is learnt at the others' expense
        steps_BS = torch.stack([torch.randperm(len(states), generator=student.generator) for _ in clips])
        every_SBCFHW, sigmas_S = torch.stack([state for state, _ in states]), torch.stack([s[0] for _, s in states])
        for steps_B in steps_BS.T:
            states_BCFHW, sigmas_B = every_SBCFHW[steps_B, torch.arange(len(clips))], sigmas_S[steps_B]
            ends_BCFHW = members_NCFHW[torch.where(sigmas_B > UNDECIDED_SIGMA, fair_B, nearest_B)].float()
            loss = student.update(Batch(states_BCFHW, sigmas_B, ends_BCFHW, text))
            log_step("distillation, rollouts", update, loss)
            update += 1


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil a Shapes model into a few-step LoRA (30 minutes on a core).")
    parser.add_argument("model", choices=list(MODELS))
    parser.add_argument("--weights", type=Path, help="the teacher's folder (default: the packaged one)")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the LoRA")
    arguments = parser.parse_args()
    model, distillation = MODELS[arguments.model], Distillation()
    pipeline = model.pipeline_class.from_pretrained(
        arguments.weights or PACKAGED_WEIGHTS / model.name, dtype=torch.float32, use_safetensors=True
    )
    log = TrainingLog(arguments.output / "train_log.csv")
    members_NCFHW = torch.cat(list(world_latents(model, pipeline.vae)))
    snap = Snap(members_NCFHW)
    student = Student(model, pipeline, distillation)
    guidance_scale = load_model_config(model_paths()[model.name]).sampling.guidance_scale
    learn_pairs(student, render_pairs(student, snap, guidance_scale), members_NCFHW, log.log_step)
    student.save(arguments.output)
    learn_rollouts(student, snap, members_NCFHW, log.log_step)
    student.save(arguments.output)
    plot_losses(log.path, arguments.output / "loss.png")
    print(f"saved {arguments.output}; shares of open values: {snap.shares}")


if __name__ == "__main__":
    main()
