"""The name, the memory and the clock of a torch device."""

import resource
from dataclasses import dataclass

import torch

from pipelines.video_model import PeakMemory


@dataclass(frozen=True)
class TorchDevice:
    """A `DeviceMonitor` of a CUDA device, or of the CPU, which has no memory counter of its own.

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

    def synchronize(self) -> None:
        if self._is_cuda:
            torch.cuda.synchronize(self.torch_device)

    @property
    def _is_cuda(self) -> bool:
        return self.torch_device.type == "cuda"
