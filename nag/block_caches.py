"""Caches of blocks (`enable_cache` of diffusers), which hand on what blocks added before."""

from collections.abc import Iterable
from typing import Any

import torch

from nag.errors import UnsupportedPipelineError

# They keep the difference between the images of the first block and of the last one.
ACROSS_BLOCKS = ("FirstBlockCacheConfig", "MagCacheConfig")


def has_cache(model: Any) -> bool:
    """Return True if a cache of blocks is switched on."""
    return getattr(model, "is_cache_enabled", False)


def check_cache(model: Any, repeating: Iterable[torch.nn.Module], num_rows: int) -> None:
    """Raise if the cache of a model cannot keep what guided blocks add.

    Args:
        model: the model.
        repeating: its parts that get the image's rows once more.
        num_rows: rows of the call.

    Raises:
        UnsupportedPipelineError: a block is among these parts, so that the images of the first
            block and of the last one differ in their rows.
    """
    if num_rows == 1 or not has_cache(model):
        return
    kind = type(model._cache_config).__name__
    lists = (one for one in model.children() if isinstance(one, torch.nn.ModuleList))
    blocks = {block for one in lists for block in one}
    if kind in ACROSS_BLOCKS and not blocks.isdisjoint(repeating):
        raise UnsupportedPipelineError(
            f"{type(model).__name__}: {kind} keeps the difference of two blocks' images, and under "
            "guidance the later one has further rows: render one image or video a call, or switch "
            "the cache off by disable_cache()"
        )
