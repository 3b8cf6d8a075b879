"""The name, the memory, the clock and the copies of a torch device."""

import resource
import time
from dataclasses import dataclass
from typing import Self

import torch

from pipelines.device_marks import DeviceMark, HostMark
from pipelines.video_model import DeviceMemory, PeakMemory


@dataclass(frozen=True, eq=False)
class CudaMark:
    """A `DeviceMark` on a CUDA stream. A thread that waits for it leaves its core to others."""

    event: torch.cuda.Event

    def wait(self) -> float:
        self.event.synchronize()
        return time.monotonic()

    def seconds_since(self, earlier: Self) -> float:
        return earlier.event.elapsed_time(self.event) / 1000


@dataclass(frozen=True)
class TorchDevice:
    """A `DeviceMonitor` of a CUDA device, or of the CPU, which has no memory counter of its own.

    Copies to and from a CUDA device go through pinned memory, in the stream that computes, so that
    the host does not wait for them. Torch keeps pinned memory and uses it again.

    Args:
        torch_device: the device that the model's weights are on.
    """

    torch_device: torch.device

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.torch_device) if self._is_cuda else "cpu"

    def reset_peak_memory(self) -> None:
        if self._is_cuda:
            torch.cuda.reset_peak_memory_stats(self.torch_device)

    def peak_memory(self) -> PeakMemory:
        if self._is_cuda:
            return PeakMemory(torch.cuda.max_memory_allocated(self.torch_device), "device")
        peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # Linux counts kibibytes
        return PeakMemory(peak_kib * 1024, "host")

    def memory(self) -> DeviceMemory | None:
        if not self._is_cuda:
            return None
        free, total = torch.cuda.mem_get_info(self.torch_device)
        return DeviceMemory(total, free + torch.cuda.memory_reserved(self.torch_device))

    def mark(self) -> DeviceMark:
        if not self._is_cuda:
            return HostMark.now()
        event = torch.cuda.Event(enable_timing=True, blocking=True)
        event.record(torch.cuda.current_stream(self.torch_device))
        return CudaMark(event)

    def fetch(self, tensor: torch.Tensor) -> torch.Tensor:
        if not self._is_cuda:
            return tensor.detach().cpu()
        pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return pinned.copy_(tensor.detach(), non_blocking=True)

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Queue the copy of a tensor from the host, and return it on the device."""
        if not self._is_cuda:
            return tensor.to(self.torch_device)
        return tensor.pin_memory().to(self.torch_device, non_blocking=True)

    @property
    def _is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"
