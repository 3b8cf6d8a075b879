"""The part of a diffusers pipeline that guidance uses, as a protocol. Loads without torch."""

from typing import Any, Protocol


class DenoisingPipeline(Protocol):
    """A stock diffusers pipeline. A modular one has guiders instead.

    Guidance also reads `transformer`, `transformer_2`, `unet` and `scheduler`. Diffusers sets these
    at run time (`register_modules`), so a type checker cannot see them; they are not declared here.
    """

    @property
    def num_timesteps(self) -> int:
        """The number of denoising steps of the call under way."""
        ...

    @property
    def encode_prompt(self) -> Any:
        """The method that turns text into the transformer's text embeddings."""
        ...

    @property
    def _execution_device(self) -> Any:
        """The device on which the pipeline computes, also under model offloading."""
        ...
