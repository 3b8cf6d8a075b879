"""Compiled blocks, the first block cache and VAE tiles: a faster or smaller pipeline on one device.

This module decides the order: LoRAs first, then these, then guidance, context parallelism last.
`block_cache` has the decision of the cache.

Blocks are compiled by their `forward`. Diffusers' `compile_repeated_blocks` compiles a block
together with its hooks; the cache's hook cannot be compiled, and those of context parallelism need
not be.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch._dynamo import config as dynamo_config

from pipelines.attention.block_cache import enable_block_cache, repeated_blocks
from pipelines.catalog.model_config import ModelConfig
from pipelines.context_parallel.plans import transformers_of
from pipelines.errors import ModelConfigError

# Each size, guidance method and number of rows has a graph of its own. Torch allows 8 for one block
# and 256 for all that share their code, and would fail the next. A graph is kilobytes of code, and
# finding it again costs microseconds.
MAX_GRAPHS = 4096
_LIMITS = {"recompile_limit": MAX_GRAPHS, "accumulated_recompile_limit": MAX_GRAPHS}


class Acceleration:
    """The acceleration that a model's YAML requests, on one pipeline, until it is removed."""

    def __init__(self, pipeline: Any, config: ModelConfig) -> None:
        """Put it on.

        Raises:
            ModelConfigError: the transformer cannot be cached, or the autoencoder cannot be tiled.
        """
        self._transformers = list(transformers_of(pipeline).values())
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
        """Denoise one clip in the context. Its cache begins empty, however the last clip ended."""
        with dynamo_config.patch(_LIMITS) if self._config.compile else nullcontext():
            self._clear_caches()
            try:
                yield
            finally:  # diffusers does it only for clips that end without an error
                self._clear_caches()

    def eager(self) -> AbstractContextManager[Any]:
        """Run nothing compiled while the context is open."""
        return torch.compiler.set_stance("force_eager") if self._config.compile else nullcontext()

    def remove(self) -> None:
        """Take everything off. Call it after context parallelism, whose hooks are above these."""
        for transformer in self._transformers:
            if self._config.first_block_cache is not None:
                transformer.disable_cache()
            if self._config.compile:
                for block in repeated_blocks(transformer):
                    del block.forward
        if self._config.vae_tiling:
            self._vae.disable_tiling()

    def _clear_caches(self) -> None:
        if self._config.first_block_cache is not None:
            for transformer in self._transformers:
                transformer._reset_stateful_cache()


def _compile_blocks(transformer: Any) -> None:
    """Compile each block for itself; equal blocks share their graphs.

    Each size has a graph of its own (`dynamic=False`). By default torch makes a graph for any size
    at the second size. That graph can round differently: a clip would depend on the clips before.
    """
    for block in repeated_blocks(transformer):
        block.forward = torch.compile(block.forward, fullgraph=True, dynamic=False)


def _check_tiles(vae: Any) -> None:
    """Refuse an autoencoder whose tiles diffusers would put together wrongly.

    Diffusers rounds the distance of tiles down to whole latents, but places their pixels at the
    distance before rounding.
    """
    for side in ("height", "width"):
        distance = getattr(vae, f"tile_sample_stride_{side}")
        if distance % vae.spatial_compression_ratio:
            raise ModelConfigError(
                f"vae_tiling needs tiles {vae.spatial_compression_ratio}k pixels apart for this "
                f"autoencoder, and they are {distance} apart: leave it out"
            )
