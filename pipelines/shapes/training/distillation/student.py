"""The student of a distillation: a transformer with a LoRA that learns, with NAG on or off.

Shape suffixes: B clips, C latent channels, F latent frames, H and W latent cells.
"""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.training_utils import EMAModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file

from nag import NagParams
from nag.attention.denoising_calls import DenoisingStep, GuidedRows
from nag.installation.installation import InstalledGuidance
from pipelines.shapes.training.models import ShapesModel
from pipelines.shapes.training.running.checkpoints import Learning
from pipelines.shapes.training.running.compute import Compute
from pipelines.shapes.training.text import MAX_TOKENS, EncodedCaptions, encode_captions

LORA_RANK, LORA_SEED = 32, 21
# every linear layer of attention and of the feed-forward, by the names that Wan and LTX share
LORA_MODULES = r".*\.(to_q|to_k|to_v|to_out\.0|net\.0\.proj|net\.2)"


@dataclass(frozen=True)
class Distillation:
    """A course of the student: its length and its speed.

    Args:
        guided_share: share of the updates that have NAG on, with a strength of `strengths`.
        rollout_steps: numbers of steps to render a batch in, drawn evenly.
    """

    name: str
    num_steps: int
    guided_share: float = 0.5
    rollout_steps: tuple[int, ...] = (4, 4, 4, 3, 8)
    strengths: tuple[NagParams, ...] = tuple(
        NagParams(nag_scale=scale, nag_alpha=alpha) for scale in (3, 6, 9) for alpha in (0.25, 0.5)
    )
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    shape_weight: float = 6.0
    ema_decay: float = 0.99
    seed: int = 21


# The second course is for NAG: it learns less from weak guidance, which hardly moves a clip.
DISTILLATIONS = (
    Distillation("distillation", num_steps=600),
    Distillation(
        "distillation, guided",
        num_steps=600,
        guided_share=0.75,
        strengths=(NagParams(nag_scale=6, nag_alpha=0.5), NagParams(nag_scale=9, nag_alpha=0.5)),
        learning_rate=1e-3,
        seed=22,
    ),
)


class EveryCall:
    """The calls of a training: all are guided. It follows nag's protocol `DenoisingCalls`."""

    def guided_rows(self, name: str | None) -> GuidedRows:
        return "all"

    def step(self) -> DenoisingStep:
        return DenoisingStep(0, 1)

    def remove(self) -> None:
        """Take nothing off: no pipeline is observed."""


class Student:
    """A transformer with a LoRA that learns."""

    def __init__(self, model: ShapesModel, pipeline: Any, compute: Compute) -> None:
        self.model, self.pipeline, self._compute = model, pipeline, compute
        torch.manual_seed(LORA_SEED)
        pipeline.to(compute.device)
        transformer = pipeline.transformer
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
        self._guidance = InstalledGuidance(pipeline, EveryCall())
        self._compiled = torch.compile(transformer)
        self.scheduler = pipeline.scheduler
        self.begin(DISTILLATIONS[0])

    def begin(self, distillation: Distillation) -> None:
        """Begin a course with the LoRA as it is."""
        self.distillation = distillation
        self.generator = torch.Generator().manual_seed(distillation.seed)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=distillation.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._ema = EMAModel(
            self.parameters, decay=distillation.ema_decay, use_ema_warmup=True, power=0.75
        )

    @property
    def device(self) -> torch.device:
        return self._compute.device

    @property
    def batch_size(self) -> int:
        return self.distillation.batch_size * self._compute.batch_factor

    @property
    def learning(self) -> Learning:
        """Return all that an update changes."""
        return Learning(self.pipeline.transformer, [self.optimizer], self.generator, self._ema)

    def encode(self, captions: list[str]) -> EncodedCaptions:
        with torch.no_grad():
            return encode_captions(
                self.pipeline.tokenizer, self.pipeline.text_encoder, captions, MAX_TOKENS
            )

    @contextmanager
    def guided(self, negatives: list[str] | None) -> Generator[None]:
        """Switch NAG on inside the `with`, in one of the strengths; None leaves it off."""
        if negatives is None:
            yield
            return
        strengths = self.distillation.strengths
        params = strengths[int(torch.randint(len(strengths), (), generator=self.generator))]
        with self._guidance.guide(negatives, params, MAX_TOKENS):
            yield

    def flow(
        self, states_BCFHW: torch.Tensor, sigmas_B: torch.Tensor, text: EncodedCaptions
    ) -> torch.Tensor:
        with self._compute.mixed_precision():
            return self.model.velocity(self._compiled, states_BCFHW, sigmas_B, text).float()

    def update(self, loss: torch.Tensor) -> None:
        """Take one optimisation step."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self._ema.step(self.parameters)

    def end(self) -> None:
        """End a course: the average of the weights takes their place."""
        self._ema.copy_to(self.parameters)

    def save(self, folder: Path) -> None:
        """Write the weights in the form that diffusers' `load_lora_weights` reads."""
        layers = get_peft_model_state_dict(self.pipeline.transformer)
        halves = {name: weight.to(torch.bfloat16).contiguous() for name, weight in layers.items()}
        self.pipeline.save_lora_weights(folder, transformer_lora_layers=halves)

    def load(self, folder: Path) -> None:
        """Take the weights that `save` wrote."""
        saved = load_file(folder / LORA_WEIGHT_NAME_SAFE)
        layers = {name.removeprefix("transformer."): value for name, value in saved.items()}
        set_peft_model_state_dict(self.pipeline.transformer, layers)
