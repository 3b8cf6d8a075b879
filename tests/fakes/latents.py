"""Latents and texts of fake models, without torch: its import takes most of a worker's start."""

from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.request import TextEmbeddings

if TYPE_CHECKING:
    import torch


class FakeLatents(np.ndarray):
    """An array with the tensor's methods that a healthy clip needs."""

    def double(self) -> np.ndarray:
        return self.astype(np.float64)

    def square(self) -> np.ndarray:
        return np.square(self)

    def isnan(self) -> np.ndarray:
        return np.isnan(self)


def fake_latents(value: float) -> "torch.Tensor":
    """Return one finite value as latents."""
    latents: Any = np.full((1, 1), value, np.float32).view(FakeLatents)
    return latents


def stored_latents(value: float) -> "torch.Tensor":
    """Return a tensor, for a clip that fails the frame checks: its latents are stored."""
    import torch

    return torch.full((1, 1), value)


def fake_embeddings() -> TextEmbeddings:
    embeds: Any = np.zeros((1, 1, 1), np.float32)
    return TextEmbeddings(embeds, None)


def run_out_of_memory() -> None:
    """Raise the error of a full device."""
    import torch

    raise torch.OutOfMemoryError("device out of memory")
