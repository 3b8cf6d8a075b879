"""The places of a pipeline's components: on the device, or in the host's memory until needed.

With `offload: text_encoder` the encoder is on the device only while it embeds a text. The texts
used last are kept, so that clips with a known text move nothing. Diffusers takes the device of a
pipeline from any of its components; so the pipeline lacks the encoder while that is on the host.
"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from pipelines.catalog.memory_config import Offload
from pipelines.errors import ModelConfigError

HOST = torch.device("cpu")


class Placement:
    """Keeps the components of one loaded pipeline in their places."""

    def __init__(self, pipeline: Any, device: torch.device, offload: Offload) -> None:
        self._pipeline = pipeline
        self._device = device
        self._encoder: Any = None
        if offload == "text_encoder" and pipeline.text_encoder is not None:
            self._encoder = pipeline.text_encoder
            self._rest()

    @contextmanager
    def encoding(self) -> Generator[None]:
        """Have the text encoder on the device while the context is open."""
        if self._encoder is None:
            yield
            return
        self._pipeline.text_encoder = self._encoder.to(self._device)
        try:
            yield
        finally:
            self._rest()

    def _rest(self) -> None:
        self._encoder.to(HOST)
        self._pipeline.text_encoder = None
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def place(pipeline: Any, device: torch.device, offload: Offload) -> Any:
    """Move a pipeline that was read into the host's memory to the device, but for the offloaded.

    Raises:
        ModelConfigError: the device is a CPU, where an offload changes nothing.
    """
    if offload == "none":
        return pipeline.to(device)
    if device.type == "cpu":
        raise ModelConfigError(
            f"offload: {offload} needs a CUDA device, and this machine has none: leave it out"
        )
    for name, component in pipeline.components.items():
        if isinstance(component, torch.nn.Module) and name != offload:
            component.to(device)
    return pipeline
