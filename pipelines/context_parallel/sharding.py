"""Puts sequence parallelism on a stock diffusers pipeline and takes it off again.

Decides which modules take part: every transformer of the pipeline, in it every self-attention. Where tensors are cut is
in `plans`, what a ring computes in `ring_attention`; the process group is made and destroyed elsewhere.

Diffusers' `enable_parallelism` does three things. It makes a mesh of devices, which fails where there is no accelerator
and gives the mesh's process groups a time-out of 30 minutes, whatever the default group's; it tells every attention of
the mesh, also LTX's cross-attentions, which need none; and it puts hooks on the model. Here the hooks are diffusers',
the mesh is made of the default group, and self-attention alone is told.
"""

import warnings
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.hooks.context_parallel import apply_context_parallel, remove_context_parallel
from diffusers.models._modeling_parallel import ContextParallelConfig
from diffusers.models._modeling_parallel import ParallelConfig as DiffusersParallelConfig
from diffusers.models.attention_dispatch import _AttentionBackendRegistry
from diffusers.models.transformers.transformer_ltx import LTXAttention
from diffusers.models.transformers.transformer_wan import WanAttention
from torch import distributed

from pipelines.attention.ring_attention import RING_BACKEND
from pipelines.context_parallel.backends import DEFAULT_BACKEND, backends_for
from pipelines.context_parallel.plans import Plan, plan_of
from pipelines.errors import ShardingError
from pipelines.parallel_config import ParallelConfig

_PIPELINES = ("WanPipeline", "WanImageToVideoPipeline", "LTXPipeline")


class ShardedPipeline:
    """Sequence parallelism on one pipeline, over all ranks of the default process group.

    Every rank makes one, and from then on every call of the pipeline is made on every rank, with the same arguments.
    NAG may be installed before or after.

    Args:
        pipeline: a stock `WanPipeline`, `WanImageToVideoPipeline` or `LTXPipeline`.
        config: its degree is the size of the process group.
        device: of the transformers.

    Raises:
        ShardingError: this pipeline, process group or attention backend cannot be used so.
    """

    def __init__(self, pipeline: Any, config: ParallelConfig, device: torch.device) -> None:
        _check(pipeline, config)
        # diffusers gathers by a function that torch 2.13 has renamed
        warnings.filterwarnings(
            "ignore", message=".*all_gather_tensor. is deprecated", category=FutureWarning
        )
        self._undo: list[
            tuple[Any, Any]
        ] = []  # self-attention's processors, and their backends before
        self._plans: list[tuple[Any, Plan]] = []
        transformers = _transformers(pipeline)
        backends = {
            _backend_of(attention.processor)
            for model in transformers
            for attention in _self_attentions(model)
        }
        if unfit := backends - backends_for(config.ring):
            raise ShardingError(
                f"the attention backend {', '.join(sorted(unfit))} cannot be shared out as {config}: "
                f"use one of {', '.join(sorted(backends_for(config.ring)))}"
            )
        self._groups = _Groups(config, device)
        has_timestep_per_token = bool(getattr(pipeline.config, "expand_timesteps", False))
        try:
            for transformer in transformers:
                self._split(transformer, plan_of(transformer, has_timestep_per_token), config)
        except BaseException:
            self.remove()
            raise

    def _split(self, transformer: Any, plan: Plan, config: ParallelConfig) -> None:
        settings = self._groups.settings
        for attention in _self_attentions(transformer):
            processor = attention.processor
            self._undo.append((processor, processor._attention_backend))
            processor._parallel_config = settings
            if config.ring > 1 and _backend_of(processor) == DEFAULT_BACKEND:
                processor._attention_backend = RING_BACKEND
        transformer._parallel_config = settings
        self._plans.append((transformer, plan))
        apply_context_parallel(transformer, settings.context_parallel_config, plan)

    def remove(self) -> None:
        """Takes it all off; the pipeline renders as it did before. Calling it again does nothing.

        The process group may be gone by then.
        """
        for transformer, plan in self._plans:
            remove_context_parallel(transformer, plan)
            transformer._parallel_config = None
        for processor, backend in self._undo:
            processor._parallel_config = None
            processor._attention_backend = backend
        self._plans.clear()
        self._undo.clear()
        self._groups.close()


@dataclass(frozen=True)
class _Ranks:
    """A process group, where diffusers expects a mesh of devices with one dimension.

    It refers to the group weakly. A gloo group closes its connections, which is what frees the other ranks when one of
    them fails, only when nothing refers to it any more. Torch's `DeviceMesh` always does, and so does a compiled graph
    that has seen it: while a graph is traced, `traced` stands for it.
    """

    group: "weakref.ref[Any]"
    num_ranks: int
    traced: "_GroupName | None"

    def size(self) -> int:
        return self.num_ranks

    def get_group(self) -> Any:
        if torch.compiler.is_compiling():
            return self.traced
        group = self.group()
        if group is None:
            raise ShardingError(
                "the process group is gone: split the pipeline anew in the next one"
            )
        return group


class _GroupName(str):
    """By its name torch's collectives find a group when they run; the size is asked for while they are traced."""

    __slots__ = ("num_ranks",)

    def size(self) -> int:
        return self.num_ranks


class _Groups:
    """The process groups of one split, as diffusers wants them."""

    def __init__(self, config: ParallelConfig, device: torch.device) -> None:
        self._own: list[weakref.ref[Any]] = []
        self._device = device
        self._world: weakref.ref[Any] = weakref.ref(distributed.group.WORLD)
        rank = distributed.get_rank()
        settings: Any = ContextParallelConfig(
            ulysses_degree=config.ulysses, ring_degree=config.ring
        )
        settings._rank, settings._world_size, settings._device = rank, config.degree, device
        # asked for its rank alone while it is traced, and None is torch's own word for all ranks
        settings._flattened_mesh = _Ranks(self._world, config.degree, traced=None)
        settings._mesh = settings._ring_mesh = settings._ulysses_mesh = _ranks(self._world)
        if config.ring > 1 and config.ulysses > 1:
            grid = torch.arange(config.degree).view(config.ring, config.ulysses)
            settings._ulysses_mesh = self._subgroup(grid.tolist())
            settings._ring_mesh = self._subgroup(grid.T.tolist())
        settings._ring_local_rank, settings._ulysses_local_rank = divmod(rank, config.ulysses)
        self.settings: Any = DiffusersParallelConfig(context_parallel_config=settings)

    def _subgroup(self, partition: list[list[int]]) -> _Ranks:
        """That of this rank; every rank takes part in making all of them."""
        world: Any = self._world()
        timeout = world._get_backend(self._device).options._timeout  # torch's default is 30 minutes
        groups = [distributed.new_group(ranks, timeout=timeout) for ranks in partition]
        (mine,) = [
            weakref.ref(g)
            for g, ranks in zip(groups, partition, strict=True)
            if world.rank() in ranks
        ]
        self._own.append(mine)
        return _ranks(mine)

    def close(self) -> None:
        """Destroys the groups that were made here, if they are still there."""
        if distributed.is_initialized() and distributed.group.WORLD is self._world():
            for group in self._own:
                distributed.destroy_process_group(group())
        self._own.clear()


def _ranks(group: "weakref.ref[Any]") -> _Ranks:
    found: Any = group()
    name = _GroupName(found.group_name)
    name.num_ranks = found.size()
    return _Ranks(group, found.size(), name)


def _check(pipeline: Any, config: ParallelConfig) -> None:
    if type(pipeline).__name__ not in _PIPELINES:
        raise ShardingError(
            f"{type(pipeline).__name__} cannot be shared out among ranks, only {', '.join(_PIPELINES)}"
        )
    if not distributed.is_initialized():
        raise ShardingError(
            "there is no process group: initialise one before the pipeline is shared out"
        )
    if distributed.get_world_size() != config.degree:
        raise ShardingError(
            f"{config} is for {config.degree} ranks, but the process group has {distributed.get_world_size()}"
        )
    if any(transformer._parallel_config is not None for transformer in _transformers(pipeline)):
        raise ShardingError("this pipeline is shared out already; remove that first")
    for transformer in _transformers(pipeline):
        if transformer.config.num_attention_heads % config.ulysses:
            raise ShardingError(
                f"ulysses {config.ulysses} does not divide the {transformer.config.num_attention_heads} attention heads"
            )


def _transformers(pipeline: Any) -> list[Any]:
    parts = [getattr(pipeline, name, None) for name in ("transformer", "transformer_2")]
    return [part for part in parts if part is not None]


def _self_attentions(transformer: Any) -> list[Any]:
    is_ltx = isinstance(transformer, LTXVideoTransformer3DModel)
    return [
        module
        for name, module in transformer.named_modules()
        if (
            isinstance(module, LTXAttention) and name.endswith(".attn1")
            if is_ltx
            else _is_wan_self_attention(module)
        )
    ]


def _is_wan_self_attention(module: Any) -> bool:
    return isinstance(module, WanAttention) and not module.is_cross_attention


def _backend_of(processor: Any) -> str:
    chosen = processor._attention_backend
    active = _AttentionBackendRegistry.get_active_backend()[0] if chosen is None else chosen
    return getattr(active, "value", active)
