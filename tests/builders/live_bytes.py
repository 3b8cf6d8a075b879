"""The bytes of the tensors that live at the peak of a computation without data."""

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Counts the storages that operations make, from their birth to their end.

    A convolution also counts copies of its input and output, as a workspace of cuDNN.

    Args:
        model: the module that computes; its weights do not count.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.now = self.peak = 0
        own = [*model.parameters(), *model.buffers()]
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._sizes:
                    self._sizes[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self._free, key)
        if func is torch.ops.aten.convolution.default:
            workspace = sum(one.numel() * one.element_size() for one in (args[0], result))
            self.peak = max(self.peak, self.now + workspace)
        return result

    def _free(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)
