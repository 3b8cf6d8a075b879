"""The student of a distillation: a transformer with a LoRA that learns, and its teacher.

Decides the LoRA and one update of it; `distill` decides what the student learns.
Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells.
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

from pipelines.shapes.training.lesson import cell_weights
from pipelines.shapes.training.models import ShapesModel
from pipelines.shapes.training.text import MAX_TOKENS, EncodedCaptions, encode_captions

LORA_RANK = 32
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
