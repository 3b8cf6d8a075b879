"""The state of a stage in one safetensors file, so that it goes on after an interruption."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from safetensors import safe_open
from safetensors.torch import save_file

SAVE_EVERY_S = 120.0


@dataclass(frozen=True, eq=False)
class Learning:
    """All that a stage changes: its module, the average of its weights, optimizers and chance."""

    module: torch.nn.Module
    optimizers: list[torch.optim.Optimizer]
    generator: torch.Generator
    ema: EMAModel | None = None


class Checkpoint:
    """A file that is written every `SAVE_EVERY_S` seconds, and read when a stage begins.

    Args:
        path: the file; None keeps nothing.
    """

    def __init__(self, path: Path | None, learning: Learning) -> None:
        self._path, self._learning = path, learning
        self._saved = time.monotonic()

    def restore(self) -> tuple[int, float]:
        """Take up what the file holds, and return its step and the seconds until then."""
        if self._path is None or not self._path.exists():
            return 0, 0.0
        with safe_open(self._path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, seconds = int(metadata["step"]), float(metadata["seconds"])
        learning = self._learning
        learning.module.load_state_dict(_under("module", tensors))
        learning.generator.set_state(tensors["generator"])
        for index, optimizer in enumerate(learning.optimizers):
            _restore_optimizer(optimizer, _under(f"optimizer{index}", tensors))
        if learning.ema is not None:
            learning.ema.optimization_step = step
            for shadow, kept in zip(
                learning.ema.shadow_params, _in_order(_under("ema", tensors)), strict=True
            ):
                shadow.copy_(kept)
        print(f"goes on after step {step} of {self._path.stem}", flush=True)
        return step, seconds

    def save_if_due(self, step: int, seconds: float) -> None:
        if self._path is None or time.monotonic() - self._saved < SAVE_EVERY_S:
            return
        self.save(step, seconds)

    def save(self, step: int, seconds: float) -> None:
        """Write the state after `step` steps; an interruption leaves the file before or after."""
        if self._path is None:
            return
        learning = self._learning
        tensors = {f"module.{name}": value for name, value in learning.module.state_dict().items()}
        tensors["generator"] = learning.generator.get_state()
        for index, optimizer in enumerate(learning.optimizers):
            for row, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer{index}.{row}.{name}": v for name, v in values.items()}
        if learning.ema is not None:
            tensors |= _numbered("ema", learning.ema.shadow_params)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        save_file(
            {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()},
            unfinished,
            {"step": str(step), "seconds": str(seconds)},
        )
        unfinished.replace(self._path)
        self._saved = time.monotonic()

    def remove(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def _numbered(prefix: str, tensors: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}.{index}": tensor for index, tensor in enumerate(tensors)}


def _in_order(tensors: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    return [tensors[name] for name in sorted(tensors, key=int)]


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    rows: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        row, _, key = name.partition(".")
        rows.setdefault(int(row), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": rows})
