"""Diffusers' first block cache: a step whose first block changes little skips the other blocks.

Diffusers' hook decides by the tokens that it sees. With context parallelism these are the tokens of
one rank: ranks would decide differently, and a rank that computes would wait forever for one that
skips. Here the ranks decide together, by the whole sequence. On one device the decision is
diffusers' own.
"""

from typing import Any

import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import HookRegistry
from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK, FBCHeadBlockHook
from torch import distributed

from pipelines.errors import ModelConfigError


def enable_block_cache(transformer: Any, threshold: float) -> None:
    """Put the cache on. Call it before context parallelism: the other order crashes in diffusers.

    Args:
        transformer: diffusers' Wan or LTX transformer.
        threshold: relative change of the first block's residual, between 0 and 1, up to which the
            rest of the step is skipped.

    Raises:
        ModelConfigError: the transformer has a single block, so there is nothing to skip.
    """
    blocks = repeated_blocks(transformer)
    if len(blocks) < 2:  # diffusers raises IndexError
        raise ModelConfigError(
            "first_block_cache needs a transformer of two blocks or more; leave it out"
        )
    transformer.enable_cache(FirstBlockCacheConfig(threshold=threshold))
    registry = HookRegistry.check_if_exists_or_initialize(blocks[0])
    stock = registry.get_hook(_FBC_LEADER_BLOCK_HOOK)
    assert isinstance(stock, FBCHeadBlockHook)
    registry.remove_hook(_FBC_LEADER_BLOCK_HOOK, recurse=False)
    registry.register_hook(_CommonDecision(stock, transformer), _FBC_LEADER_BLOCK_HOOK)


def repeated_blocks(transformer: Any) -> list[torch.nn.Module]:
    """Return the transformer's blocks in order, by the class that diffusers compiles by region."""
    return [
        module
        for module in transformer.modules()
        if type(module).__name__ in transformer._repeated_blocks
    ]


class _CommonDecision(FBCHeadBlockHook):
    """The first block's hook, with one decision for all ranks that share the sequence."""

    def __init__(self, stock: FBCHeadBlockHook, transformer: Any) -> None:
        super().__init__(stock.state_manager, stock.threshold)
        self._transformer = transformer

    @torch.compiler.disable
    def _should_compute_remaining_blocks(self, hidden_states_residual: torch.Tensor) -> bool:
        if self._transformer._parallel_config is None:  # may change between clips
            stock: Any = super()  # torch.compiler.disable loses its types
            return stock._should_compute_remaining_blocks(hidden_states_residual)
        previous = self.state_manager.get_state().head_block_residual
        if previous is None:  # the same on all ranks, which began the same clip
            return True
        change, size = _whole_means(hidden_states_residual - previous, previous)
        return (change / size).item() > self.threshold  # NaN skips the blocks, as in diffusers


def _whole_means(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the mean magnitudes of two tensors that are spread over the ranks.

    The sums are in float32, the results in the tensors' own dtype, as for `mean`.

    Args:
        one: this rank's part of a tensor.
        other: this rank's part of another tensor of the same shape.
    """
    count = torch.tensor(float(one.numel()), device=one.device)
    sums = torch.stack([*(part.abs().sum(dtype=torch.float32) for part in (one, other)), count])
    distributed.all_reduce(sums)
    return (sums[0] / sums[2]).to(one.dtype), (sums[1] / sums[2]).to(one.dtype)
