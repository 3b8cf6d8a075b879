"""The protocol of a loaded model, as the rest of the project sees it. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames

if TYPE_CHECKING:
    import torch

    from nag import Coverage

OnStep = Callable[[int], None]  # called when denoise step i, from 0, has been issued


@dataclass(frozen=True)
class PeakMemory:
    """The most memory in use.

    Args:
        num_bytes: bytes of memory.
        kind: "device" for the device's own memory since the last reset, "host" for the largest
            size that this process ever had, on a device without memory of its own.
    """

    num_bytes: int
    kind: Literal["device", "host"]


class DeviceMonitor(Protocol):
    """The name, the memory and the clock of the device that renders."""

    @property
    def name(self) -> str:
        """The device's usual name, such as "cpu" or "NVIDIA H100 80GB HBM3"."""
        ...

    def reset_peak_memory(self) -> None:
        """Begin a new measurement of the peak, on a device that has such a counter."""
        ...

    def peak_memory(self) -> PeakMemory:
        """Return the most memory in use since `reset_peak_memory`."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has finished all queued work, so that a clock read next is true."""
        ...


class VideoModel(Protocol):
    """A loaded model. Each stage of a clip is a call of its own, so that it is timed alone."""

    @property
    def device(self) -> DeviceMonitor:
        """The device that renders."""
        ...

    def encode_text(self, request: GenerationRequest) -> TextEmbeddings:
        """Embed the prompt, and the negative prompt if it is needed. Each distinct text once."""
        ...

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoise from the request's seed alone.

        Returns:
            Latents as the family's pipeline gives them with `output_type="latent"`.
        """
        ...

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        """Decode latents to 8-bit frames."""
        ...

    def exact_attention(self) -> AbstractContextManager[None]:
        """Use exact attention in this thread while the context is open.

        It is slower and gives the same picture. A clip whose latents became NaN in a fused kernel
        may pass with it.
        """
        ...

    def close(self) -> None:
        """Release the weights."""
        ...


@dataclass(frozen=True)
class LoadedModel:
    """A model as its loader returns it.

    Args:
        model: the loaded model.
        coverage: the number of guided text attentions, and the number of all.
    """

    model: VideoModel
    coverage: Coverage
