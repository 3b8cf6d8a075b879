"""The device of a training, and what it does faster: precision, kernels, larger batches."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

GPU_BATCH_FACTOR = 8  # a batch for two cores leaves a GPU idle


@dataclass(frozen=True)
class Compute:
    """A device, and the factor by which it takes larger batches than a CPU."""

    device: torch.device
    batch_factor: int = 1

    @classmethod
    def on(cls, name: str) -> "Compute":
        """Take `cpu`, `cuda`, or with `auto` the GPU if there is one.

        Raises:
            ValueError: `cuda` without a GPU that torch can use.
        """
        has_gpu = torch.cuda.is_available()
        if name == "cuda" and not has_gpu:
            raise ValueError(
                "expected a GPU for --device cuda, but torch finds none: pass --device cpu"
            )
        device = torch.device("cuda" if name == "cuda" or (name == "auto" and has_gpu) else "cpu")
        return cls(device, GPU_BATCH_FACTOR if device.type == "cuda" else 1)

    @contextmanager
    def mixed_precision(self) -> Generator[None]:
        """Compute in bfloat16 inside the `with`, with the attention that trains fastest."""
        # the flash kernel's backward pass is several times slower than the plain one on a CPU
        backends = [SDPBackend.MATH]
        if self.device.type == "cuda":
            backends = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, *backends]
        with sdpa_kernel(backends), torch.autocast(self.device.type, dtype=torch.bfloat16):
            yield


ON_CPU = Compute(torch.device("cpu"))
