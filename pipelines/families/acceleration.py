"""A faster or smaller pipeline on one device: compiled parts, the first block cache, VAE tiles.

This module decides the order: LoRAs first, then these, then guidance, context parallelism last.
`block_cache` has the decision of the cache.

Blocks are compiled by their `forward`. Diffusers' `compile_repeated_blocks` compiles a block
together with its hooks; the cache's hook cannot be compiled, and those of context parallelism need
not be.
"""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
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
        if config.vae_memory_format == "channels_last_3d":
            _set_memory_format(self._vae, torch.channels_last, torch.channels_last_3d)
        if config.vae_compile:
            self._vae.decoder.forward = _compiled(self._vae.decoder.forward)

    @contextmanager
    def clip(self) -> Generator[None]:
        """Denoise one clip in the context. Its cache begins empty, however the last clip ended."""
        with _limits(self._config.compile):
            self._clear_caches()
            try:
                yield
            finally:  # diffusers does it only for clips that end without an error
                self._clear_caches()

    def decoding(self) -> AbstractContextManager[Any]:
        """Decode one clip in the context."""
        return _limits(self._config.vae_compile)

    def eager(self) -> AbstractContextManager[Any]:
        """Run nothing compiled while the context is open."""
        is_compiled = self._config.compile or self._config.vae_compile
        return torch.compiler.set_stance("force_eager") if is_compiled else nullcontext()

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
        if self._config.vae_memory_format == "channels_last_3d":
            _set_memory_format(self._vae, torch.contiguous_format, torch.contiguous_format)
        if self._config.vae_compile:
            del self._vae.decoder.forward

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
        block.forward = _compiled(block.forward)


def _compiled(forward: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(forward, fullgraph=True, dynamic=False)


def _limits(is_compiled: bool) -> AbstractContextManager[Any]:
    return dynamo_config.patch(_LIMITS) if is_compiled else nullcontext()


def _set_memory_format(
    vae: Any, of_images: torch.memory_format, of_videos: torch.memory_format
) -> None:
    """Set the memory format of each convolution's weights; its output takes the format of these."""
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            wanted = of_videos if isinstance(module, nn.Conv3d) else of_images
            module.weight.data = module.weight.data.contiguous(memory_format=wanted)


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
