"""LoRAs of the tiny transformers in each layout that trainers write, and the change that they are.

A LoRA is made as matrices by module in diffusers' names. A layout names its entries.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipelines.catalog.model_loras import DEFAULT_WEIGHT_NAME
from tests.builders import tiny

Tensors = dict[str, torch.Tensor]
TRANSFORMERS: dict[str, Callable[[], Any]] = {
    "wan": tiny.wan_transformer,
    "ltx": lambda: tiny.ltx_transformer(num_heads=2),
}
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
# Wan's names by hand, not from the code under test: diffusers -> Wan's own repository.
WAN = {
    ".attn1.": ".self_attn.",
    ".attn2.": ".cross_attn.",
    ".to_out.0.": ".o.",
    ".to_q.": ".q.",
    ".to_k.": ".k.",
    ".to_v.": ".v.",
    ".ffn.net.0.proj.": ".ffn.0.",
    ".ffn.net.2.": ".ffn.2.",
    ".condition_embedder.time_proj.": ".time_projection.1.",
    ".condition_embedder.time_embedder.linear_1.": ".time_embedding.0.",
    ".condition_embedder.time_embedder.linear_2.": ".time_embedding.2.",
    ".condition_embedder.text_embedder.linear_1.": ".text_embedding.0.",
    ".condition_embedder.text_embedder.linear_2.": ".text_embedding.2.",
    ".proj_out.": ".head.head.",
}
LTX = {".proj_in.": ".patchify_proj.", ".time_embed.": ".adaln_single."}


@dataclass(frozen=True)
class Matrices:
    """The two matrices of a module's change, which is `scale * up @ down`."""

    down: torch.Tensor
    up: torch.Tensor

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def change(self, scale: float = 1.0) -> torch.Tensor:
        down, up = self.down.double().flatten(1), self.up.double().flatten(1)
        return (scale * (up @ down)).view(self.up.shape[0], *self.down.shape[1:])


def every_layer(
    family: str, endings: tuple[str, ...] = ("",), seed: int = 1
) -> dict[str, Matrices]:
    """Return matrices of the ranks 2 and 3 for each linear layer and convolution."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, Matrices] = {}
    for name, module in TRANSFORMERS[family]().named_modules():
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim < 2 or not name.endswith(endings):
            continue
        rank = 2 + len(found) % 2
        ones = [1] * (weight.ndim - 2)
        found[name] = Matrices(
            torch.randn(rank, *weight.shape[1:], generator=generator),
            0.2 * torch.randn(weight.shape[0], rank, *ones, generator=generator),
        )
    return found


def published(family: str, module: str) -> str:
    name = f".{module}."
    for ours, theirs in (WAN if family == "wan" else LTX).items():
        name = name.replace(ours, theirs)
    return name.strip(".")


@dataclass(frozen=True)
class Layout:
    """The names that one kind of trainer writes: prefix, module, and endings of the matrices."""

    prefix: str
    down: str = "lora_A.weight"
    up: str = "lora_B.weight"
    is_published: bool = True
    separator: str = "."

    def module(self, family: str, module: str) -> str:
        name = published(family, module) if self.is_published else module
        return self.prefix + name.replace(".", self.separator)

    def entries(self, family: str, layers: dict[str, Matrices], alpha: float | None) -> Tensors:
        tensors: Tensors = {}
        for module, matrices in layers.items():
            name = self.module(family, module)
            tensors[f"{name}.{self.down}"] = matrices.down
            tensors[f"{name}.{self.up}"] = matrices.up
            if alpha is not None:
                tensors[f"{name}.alpha"] = torch.tensor(alpha)
        return tensors


_KOHYA = ("lora_down.weight", "lora_up.weight")
LAYOUTS: dict[str, Layout] = {
    "diffusers": Layout("transformer.", is_published=False),
    "diffusers, old": Layout("transformer.", "lora.down.weight", "lora.up.weight", False),
    "diffusers without a prefix": Layout("", is_published=False),
    "ComfyUI": Layout("diffusion_model."),
    "lightx2v": Layout("diffusion_model.", *_KOHYA),
    "lightx2v without a prefix": Layout("", *_KOHYA),
    "kohya, musubi": Layout("lora_unet_", *_KOHYA, separator="_"),
    "kohya with diffusers' names": Layout("lora_unet_", *_KOHYA, False, "_"),
    "DiffSynth": Layout("", "lora_A.default.weight", "lora_B.default.weight"),
    "DiffSynth with a prefix": Layout(
        "pipe.dit.", "lora_A.default.weight", "lora_B.default.weight"
    ),
    "checkpoint": Layout("model.diffusion_model."),
}


def save_matrices_and_bias(folder: Path) -> Path:
    """Save a LoRA of Wan that changes one layer by matrices, and the bias of another as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, width = torch.Generator().manual_seed(7), 2 * tiny.HEAD_DIM
    path = folder / DEFAULT_WEIGHT_NAME
    tensors = {
        "diffusion_model.blocks.0.cross_attn.k.lora_A.weight": (2, width),
        "diffusion_model.blocks.0.cross_attn.k.lora_B.weight": (width, 2),
        "diffusion_model.blocks.0.cross_attn.v.diff_b": (width,),
    }
    save_file(
        {name: torch.randn(*shape, generator=generator) for name, shape in tensors.items()}, path
    )
    return path
