"""Components that take turns on the device: one is there, and the others wait in the host's memory.

A component comes when it is called, and the one before goes. So of two transformers, each is there
for its part of the noise schedule. The weights in the host's memory stay there all the time: to
come, they are copied, and to go, the copy is dropped.

Diffusers' `enable_model_cpu_offload` copies them back, too, and lets the text encoder stay while
the autoencoder decodes. From it is the place where a component is noticed: accelerate's hook, which
diffusers calls before `forward`, `encode` and `decode`, and asks for the device of a pipeline.
"""

from collections.abc import Iterable
from typing import Any

import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module


class Turns:
    """Gives the device to one of several modules at a time; buffers, which are small, stay there.

    Args:
        modules: in the host's memory.
        device: the device that they compute on.
    """

    def __init__(self, modules: Iterable[torch.nn.Module], device: torch.device) -> None:
        self._modules = tuple(modules)
        self._device = device
        self._resident: torch.nn.Module | None = None
        self._waiting: list[tuple[torch.nn.Parameter, torch.Tensor]] = []  # the resident's
        for module in self._modules:
            for buffer in module.buffers():
                buffer.data = buffer.data.to(device)
            add_hook_to_module(module, _Fetch(self, device))

    def fetch(self, module: torch.nn.Module) -> None:
        """Have a module on the device, alone."""
        if module is self._resident:
            return
        self.clear()
        self._resident = module
        for parameter in module.parameters():
            self._waiting.append((parameter, parameter.data))
            parameter.data = copy_to(parameter.data, self._device)

    def has(self, module: torch.nn.Module | None) -> bool:
        """Return True if a module is on the device."""
        return module is not None and module is self._resident

    def clear(self) -> None:
        """Have no module on the device."""
        for parameter, values in self._waiting:
            parameter.data = values
        self._waiting.clear()
        self._resident = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def remove(self) -> None:
        """Leave all modules in the host's memory, without hooks."""
        self.clear()
        for module in self._modules:
            remove_hook_from_module(module)


class _Fetch(ModelHook):
    def __init__(self, turns: Turns, device: torch.device) -> None:
        self._turns = turns
        self.execution_device = device  # diffusers reads it

    def pre_forward(self, module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        self._turns.fetch(module)
        return args, kwargs


def copy_to(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a copy on a device, also where they are there already."""
    return values.to(device, copy=True)
