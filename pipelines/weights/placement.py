"""The places of a pipeline's components: on the device, or in the host's memory until needed.

With `offload: text_encoder` the encoder is on the device only while it embeds the texts of a
request. The texts used last are kept, so that clips with known texts move nothing. Diffusers takes
the device of a pipeline from any of its components; so the pipeline lacks the encoder while that is
on the host. With `group` the transformers' blocks come one after another, too, by diffusers' group
offloading. With `model` all components take turns (`swapping`).
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.hooks import HookRegistry

from pipelines.catalog.keys.memory_config import Offload
from pipelines.context_parallel.plans import transformers_of
from pipelines.errors import ModelConfigError
from pipelines.weights.swapping import Turns

HOST = torch.device("cpu")
GROUP_HOOK = "group_offloading"
PREFETCH_HOOKS = ("lazy_prefetch_group_offloading", "layer_execution_tracker")


class Placement:
    """Keeps the components of one loaded pipeline in their places, until it is removed."""

    def __init__(self, pipeline: Any, device: torch.device, offload: Offload) -> None:
        self._pipeline = pipeline
        self._device = device
        self._turns: Turns | None = None
        self._streamed: list[Any] = []  # registries of hooks, one for each block and transformer
        self._encoder: Any = None
        self._is_encoder_here = True
        if offload == "model":
            self._turns = Turns(_modules(pipeline).values(), device)
        if offload == "group":
            for transformer in transformers_of(pipeline).values():
                self._streamed += _stream_blocks(transformer, device)
        if offload in ("text_encoder", "group") and pipeline.text_encoder is not None:
            self._encoder = pipeline.text_encoder
            self._rest()

    @contextmanager
    def encoding(self) -> Generator[None]:
        """Leave the text encoder, once fetched, on the device until the context ends."""
        try:
            yield
        finally:
            if self._encoder is not None and self._is_encoder_here:
                self._rest()

    @property
    def has_fetched_encoder(self) -> bool:
        """True if the text encoder waits in the host's memory at times, and is here now."""
        if self._turns is not None:
            return self._turns.has(self._pipeline.text_encoder)
        return self._encoder is not None and self._is_encoder_here

    def fetch_encoder(self) -> None:
        """Have the text encoder on the device. Call it while `encoding` is open."""
        if not self._is_encoder_here:
            self._pipeline.text_encoder = self._encoder.to(self._device)
            self._is_encoder_here = True

    def clear(self) -> None:
        """Have all that takes turns in the host's memory, also after a call that failed."""
        if self._turns is not None:
            self._turns.clear()
        for registry in self._streamed:
            registry.get_hook(GROUP_HOOK).group.offload_()

    def remove(self) -> None:
        """Take all hooks off. What was offloaded stays in the host's memory."""
        self.clear()
        if self._turns is not None:
            self._turns.remove()
        for registry in self._streamed:
            for name in (GROUP_HOOK, *PREFETCH_HOOKS):
                registry.remove_hook(name, recurse=False)
        self._streamed.clear()

    def _rest(self) -> None:
        self._encoder.to(HOST)
        self._pipeline.text_encoder = None
        self._is_encoder_here = False
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def check_offload(device: torch.device, offload: Offload) -> None:
    """Refuse an offload on a CPU, where it would change nothing. Call it before weights are read.

    Raises:
        ModelConfigError: the machine has no CUDA device.
    """
    if offload != "none" and device.type == "cpu":
        raise ModelConfigError(
            f"offload: {offload} needs a CUDA device, and this machine has none: leave it out"
        )


def place(pipeline: Any, device: torch.device, offload: Offload) -> Any:
    """Move a pipeline that was read into the host's memory to the device, but for the offloaded."""
    if offload == "none":
        return pipeline.to(device)
    modules = _modules(pipeline)
    waiting = {"text_encoder"}
    if offload == "group":
        waiting |= transformers_of(pipeline).keys()
    elif offload == "model":
        waiting = modules.keys() - {"connectors"}  # small, and called beside the text encoder
    for name, module in modules.items():
        if name not in waiting:
            module.to(device)
    return pipeline


def _modules(pipeline: Any) -> dict[str, torch.nn.Module]:
    return {
        name: component
        for name, component in pipeline.components.items()
        if isinstance(component, torch.nn.Module)
    }


def _stream_blocks(transformer: Any, device: torch.device) -> list[Any]:
    """Have the blocks come one after another, each while the one before computes."""
    transformer.enable_group_offload(
        onload_device=device,
        offload_device=HOST,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=device.type == "cuda",
    )
    modules = transformer.modules()
    registries = [HookRegistry.check_if_exists_or_initialize(module) for module in modules]
    return [registry for registry in registries if registry.get_hook(GROUP_HOOK) is not None]
