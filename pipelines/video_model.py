"""What every model family can do, as the batch sees it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames

if TYPE_CHECKING:
    import torch

    from nag import Coverage


@dataclass(frozen=True)
class PeakMemory:
    """Bytes of the device's memory, or where it has none of its own the largest the process ever was."""

    num_bytes: int
    kind: Literal["device", "host"]


OnStep = Callable[[int], None]  # called when denoise step i, from 0, has been issued


class VideoModel(Protocol):
    """A loaded model. The three stages of a clip, each a call of its own so that each can be timed."""

    @property
    def nag_coverage(self) -> Coverage:
        """How many text cross-attentions are guided, of how many."""
        ...

    def encode_text(self, request: GenerationRequest) -> TextEmbeddings:
        """Embeds the prompt and, where anything needs it, the negative prompt; each distinct text once."""
        ...

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoises from the request's seed alone.

        Returns:
            Latents as the family's pipeline gives them with `output_type="latent"`.
        """
        ...

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        """Decodes latents to 8-bit frames."""
        ...

    def exact_attention(self) -> AbstractContextManager[None]:
        """Within it this thread denoises with exact attention, without fused kernels.

        Slower, and the same picture; a clip whose latents became NaN in such a kernel may pass.
        """
        ...

    @property
    def device_name(self) -> str:
        """The device as people call it, such as "cpu" or "NVIDIA H100 80GB HBM3"."""
        ...

    def reset_peak_memory(self) -> None:
        """Begins a new measurement of the peak, where the device has such a counter."""
        ...

    def peak_memory(self) -> PeakMemory:
        """The most memory that was in use since `reset_peak_memory`."""
        ...

    def synchronize(self) -> None:
        """Waits until the device has done all that was asked of it, so that a clock read afterwards is true."""
        ...

    def close(self) -> None:
        """Lets go of the weights."""
        ...
