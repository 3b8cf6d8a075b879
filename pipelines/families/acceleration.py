"""What makes a loaded pipeline faster or smaller on one device: compiled blocks, the first block cache, VAE tiles.

Decides what is put on and in which order: LoRAs first, then these, then guidance, sequence parallelism last. How the
cache decides is in `block_cache`.

Blocks are compiled by their `forward` instead of diffusers' `compile_repeated_blocks`, which compiles a block together
with the hooks that sit on it; the cache's hook cannot be compiled, and those of sequence parallelism need not be.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch._dynamo import config as dynamo_config

from pipelines.attention.block_cache import enable_block_cache, repeated_blocks
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import ModelConfigError

# Each size, guidance method and number of rows has a graph of its own. Torch allows 8 for one block, 256 for all that
# share their code, and would fail the next; a graph is kilobytes of code, and finding it again costs microseconds.
MAX_GRAPHS = 4096
_LIMITS = {"recompile_limit": MAX_GRAPHS, "accumulated_recompile_limit": MAX_GRAPHS}


class Acceleration:
    """What a model's YAML asks for, on one pipeline, until it is removed."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        """Puts it on.

        Raises:
            ModelConfigError: the model's transformer cannot be cached, or its autoencoder not be tiled.
        """
        found = (getattr(pipeline, name, None) for name in ("transformer", "transformer_2"))
        self._transformers = [transformer for transformer in found if transformer is not None]
        self._vae = pipeline.vae
        self._config = config
        for transformer in self._transformers:
            if config.compile:
                _compile_blocks(transformer)
            if config.first_block_cache is not None:
                enable_block_cache(transformer, config.first_block_cache)
        if config.vae_tiling:
            _check_tiles(self._vae)
            self._vae.enable_tiling()

    @contextmanager
    def clip(self) -> Generator[None]:
        """Within it one clip is denoised: what the cache keeps is empty before, whatever became of the last clip."""
        with dynamo_config.patch(_LIMITS) if self._config.compile else nullcontext():
            self._forget()
            try:
                yield
            finally:  # diffusers does it for clips that end well
                self._forget()

    def eager(self) -> AbstractContextManager[Any]:
        """Within it nothing runs compiled."""
        return torch.compiler.set_stance("force_eager") if self._config.compile else nullcontext()

    def remove(self) -> None:
        """Takes everything off. After sequence parallelism, whose hooks lie on top of these."""
        for transformer in self._transformers:
            if self._config.first_block_cache is not None:
                transformer.disable_cache()
            if self._config.compile:
                for block in repeated_blocks(transformer):
                    del block.forward
        if self._config.vae_tiling:
            self._vae.disable_tiling()

    def _forget(self) -> None:
        if self._config.first_block_cache is not None:
            for transformer in self._transformers:
                transformer._reset_stateful_cache()


def _compile_blocks(transformer: Any) -> None:
    """Compiles each block for itself; blocks that are alike share their graphs.

    Each size has a graph of its own (`dynamic=False`). By default torch's second size makes a graph for any size, which
    can round otherwise: a clip would depend on the clips before it.
    """
    for block in repeated_blocks(transformer):
        block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)


def _check_tiles(vae: Any) -> None:
    """Diffusers rounds the distance of tiles down to whole latents, and puts their pixels at the distance unrounded."""
    for side in ("height", "width"):
        distance = getattr(vae, f"tile_sample_stride_{side}")
        if distance % vae.spatial_compression_ratio:
            raise ModelConfigError(
                f"vae_tiling needs tiles {vae.spatial_compression_ratio}k pixels apart for this autoencoder, and they "
                f"are {distance} apart: leave it out"
            )
