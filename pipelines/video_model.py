"""The protocol of a loaded model, as the rest of the project sees it. Loads without torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from pipelines.device_marks import DeviceMark
from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames

if TYPE_CHECKING:
    from pathlib import Path

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


@dataclass(frozen=True)
class DeviceMemory:
    """The memory of a device, in bytes.

    Args:
        total_bytes: all of it.
        available_bytes: memory that this process has or can have.
    """

    total_bytes: int
    available_bytes: int

    @property
    def others_bytes(self) -> int:
        """Memory that other processes hold."""
        return max(0, self.total_bytes - self.available_bytes)


class DeviceMonitor(Protocol):
    """The name, the memory, the clock and the results of the device that renders.

    A device may have a queue: a call queues work and returns before it is done. `mark` and `fetch`
    are queued too, so that the host never has to wait for the device between two clips.
    """

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

    def memory(self) -> DeviceMemory | None:
        """Return the memory of the device now; None from one without memory of its own."""
        ...

    def mark(self) -> DeviceMark:
        """Mark the end of the work that is queued now."""
        ...

    def fetch(self, tensor: torch.Tensor) -> torch.Tensor:
        """Queue the copy of a tensor to the host.

        Returns:
            The copy, which is whole once the device has passed a mark made after this call.
        """
        ...


class PendingFrames(Protocol):
    """The frames of a clip, which the device may not have finished."""

    def result(self) -> VideoFrames:
        """Wait for the frames, from any thread.

        Raises:
            FrameCheckError: they hold NaN or infinite values.
        """
        ...


class VideoModel(Protocol):
    """A loaded model. Each stage of a clip is a call of its own, so that it is timed alone.

    The calls queue work on the device. Make them all in one thread.
    """

    @property
    def device(self) -> DeviceMonitor:
        """The device that renders."""
        ...

    def encode_text(
        self, request: GenerationRequest, ahead: Sequence[GenerationRequest] = ()
    ) -> TextEmbeddings:
        """Embed the prompt, and the negative prompt if it is needed. Each distinct text once.

        Args:
            ahead: requests that come next. A text encoder that has to be fetched embeds their texts
                too, and so is fetched less often.
        """
        ...

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoise from the request's seed alone.

        Returns:
            Latents as the family's pipeline gives them with `output_type="latent"`.
        """
        ...

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> PendingFrames:
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
        folder: folder of the weights on this machine; None for a model without one.
    """

    model: VideoModel
    coverage: Coverage
    folder: Path | None = None
