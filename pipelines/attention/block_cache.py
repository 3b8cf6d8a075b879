"""Diffusers' first block cache on a transformer: steps in which the first block changes little skip the other blocks.

Decides for whom that decision holds. Diffusers' hook looks at the tokens that it sees, which under sequence parallelism
are one rank's: ranks would decide differently, and those that compute would wait for ever for those that do not. Here
the ranks decide together, by the whole sequence. Where there is one device the decision is diffusers' own.
"""

from typing import Any

import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import HookRegistry
from diffusers.hooks.first_block_cache import _FBC_LEADER_BLOCK_HOOK, FBCHeadBlockHook
from torch import distributed

from pipelines.errors import ModelConfigError


def enable_block_cache(transformer: Any, threshold: float) -> None:
    """Puts the cache on. Before sequence parallelism: the other order crashes in diffusers.

    Args:
        transformer: diffusers' Wan or LTX.
        threshold: relative change of the first block's residual up to which the rest of the step is skipped.

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
    """The transformer's blocks in their order, by the class that diffusers names for regional compilation."""
    return [
        module
        for module in transformer.modules()
        if type(module).__name__ in transformer._repeated_blocks
    ]


class _CommonDecision(FBCHeadBlockHook):
    """The first block's hook, whose decision is that of all ranks that share the sequence."""

    def __init__(self, stock: FBCHeadBlockHook, transformer: Any) -> None:
        super().__init__(stock.state_manager, stock.threshold)
        self._transformer = transformer

    @torch.compiler.disable
    def _should_compute_remaining_blocks(self, hidden_states_residual: torch.Tensor) -> bool:
        if self._transformer._parallel_config is None:  # asked each time: groups come and go
            stock: Any = super()  # its types are lost in torch.compiler.disable
            return stock._should_compute_remaining_blocks(hidden_states_residual)
        previous = self.state_manager.get_state().head_block_residual
        if previous is None:  # on all ranks alike: they began the same clip
            return True
        change, size = _whole_means(hidden_states_residual - previous, previous)
        return (
            change / size
        ).item() > self.threshold  # not a number is no change, as for diffusers


def _whole_means(one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean magnitudes of two tensors, of which each rank of the default group has a part.

    Summed up in float32 and given in the tensors' own dtype, as `mean` does it.
    """
    count = torch.tensor(float(one.numel()), device=one.device)
    sums = torch.stack([*(part.abs().sum(dtype=torch.float32) for part in (one, other)), count])
    distributed.all_reduce(sums)
    return (sums[0] / sums[2]).to(one.dtype), (sums[1] / sums[2]).to(one.dtype)
