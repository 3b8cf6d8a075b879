"""Context parallelism on a stock diffusers pipeline: put on, and taken off again.

All transformers of the pipeline take part, with all their self-attentions. `plans` has the points
where tensors are split, `ring_attention` the computation of a ring. `process_group` forms and
destroys the process group.

Diffusers' `enable_parallelism` does three things. It makes a mesh of devices, which fails without
an accelerator and gives the mesh's process groups a time-out of 30 minutes, whatever the default
group has. It gives the mesh to every attention, also to LTX's cross-attentions, which need none.
It puts hooks on the model. Here the hooks are diffusers', the mesh is made of the default group,
and only self-attentions get it.
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
from pipelines.context_parallel.divisibility import divisors
from pipelines.context_parallel.plans import Plan, plan_of, transformers_of
from pipelines.errors import ShardingError
from pipelines.parallel_config import ParallelConfig

PIPELINES = (
    "WanPipeline",
    "WanImageToVideoPipeline",
    "WanVideoToVideoPipeline",
    "WanVACEPipeline",
    "LTXPipeline",
)


class ShardedPipeline:
    """Context parallelism on one pipeline, over all ranks of the default process group.

    Each rank makes one. From then on, each rank must make every call of the pipeline, with the
    same arguments. NAG may be installed before or after.

    Args:
        pipeline: a stock pipeline of one of the classes in `PIPELINES`.
        config: the kind of parallelism; its degree is the size of the process group.
        device: the device of the transformers.

    Raises:
        ShardingError: the pipeline, process group or attention backend does not support it.
    """

    def __init__(self, pipeline: Any, config: ParallelConfig, device: torch.device) -> None:
        _check(pipeline, config)
        # Diffusers gathers with a function that torch 2.13 has renamed.
        warnings.filterwarnings(
            "ignore", message=".*all_gather_tensor. is deprecated", category=FutureWarning
        )
        # The self-attentions' processors, with the backends that they had before.
        self._undo: list[tuple[Any, Any]] = []
        self._plans: list[tuple[Any, Plan]] = []
        transformers = transformers_of(pipeline).values()
        backends = {
            _backend_of(attention.processor)
            for model in transformers
            for attention in _self_attentions(model)
        }
        if unfit := backends - backends_for(config.ring):
            raise ShardingError(
                f"the attention backend {', '.join(sorted(unfit))} cannot be sharded as {config}: "
                f"use one of {', '.join(sorted(backends_for(config.ring)))}"
            )
        self._groups = _Groups(config, device)
        has_timestep_per_token = bool(getattr(pipeline.config, "expand_timesteps", False))
        try:
            for transformer in transformers:
                self._shard(transformer, plan_of(transformer, has_timestep_per_token), config)
        except BaseException:
            self.remove()
            raise

    def _shard(self, transformer: Any, plan: Plan, config: ParallelConfig) -> None:
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
        """Take everything off, so that the pipeline renders as before. A second call does nothing.

        The process group may have been destroyed before.
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
    """A process group in the place where diffusers expects a mesh of devices with one dimension.

    It refers to the group weakly. A gloo group closes its connections only when nothing refers to
    it any more, and this frees the other ranks when one fails. Torch's `DeviceMesh` always refers
    to its group, and so does a compiled graph that has seen the group. `traced` stands for the
    group while a graph is traced.
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
                "the process group was destroyed: shard the pipeline again in the next one"
            )
        return group


class _GroupName(str):
    """The name by which torch's collectives find a group when they run.

    Tracing a collective asks it for the size.
    """

    __slots__ = ("num_ranks",)

    def size(self) -> int:
        return self.num_ranks


class _Groups:
    """The process groups of one sharded pipeline, as diffusers expects them."""

    def __init__(self, config: ParallelConfig, device: torch.device) -> None:
        self._own: list[weakref.ref[Any]] = []
        self._device = device
        self._world: weakref.ref[Any] = weakref.ref(distributed.group.WORLD)
        rank = distributed.get_rank()
        settings: Any = ContextParallelConfig(
            ulysses_degree=config.ulysses, ring_degree=config.ring
        )
        settings._rank, settings._world_size, settings._device = rank, config.degree, device
        # Tracing asks it for its rank alone, and None is torch's value for all ranks.
        settings._flattened_mesh = _Ranks(self._world, config.degree, traced=None)
        settings._mesh = settings._ring_mesh = settings._ulysses_mesh = _ranks(self._world)
        if config.ring > 1 and config.ulysses > 1:
            grid = torch.arange(config.degree).view(config.ring, config.ulysses)
            settings._ulysses_mesh = self._subgroup(grid.tolist())
            settings._ring_mesh = self._subgroup(grid.T.tolist())
        settings._ring_local_rank, settings._ulysses_local_rank = divmod(rank, config.ulysses)
        self.settings: Any = DiffusersParallelConfig(context_parallel_config=settings)

    def _subgroup(self, partition: list[list[int]]) -> _Ranks:
        """Make all groups of a partition, as every rank must, and return this rank's group."""
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
        """Destroy the groups that were made here, unless they were destroyed before."""
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
    if type(pipeline).__name__ not in PIPELINES:
        raise ShardingError(
            f"{type(pipeline).__name__} cannot be sharded over ranks, only {', '.join(PIPELINES)}"
        )
    if not distributed.is_initialized():
        raise ShardingError(
            "expected a process group, found none: initialise one before sharding the pipeline"
        )
    if distributed.get_world_size() != config.degree:
        raise ShardingError(
            f"{config} is for {config.degree} ranks, but the process group has "
            f"{distributed.get_world_size()}"
        )
    transformers = transformers_of(pipeline).values()
    if any(transformer._parallel_config is not None for transformer in transformers):
        raise ShardingError(
            "this pipeline is sharded already; call remove() of its ShardedPipeline first"
        )
    for transformer in transformers:
        num_heads = transformer.config.num_attention_heads
        if num_heads % config.ulysses:
            raise ShardingError(
                f"ulysses must divide the {num_heads} attention heads "
                f"({', '.join(map(str, divisors(num_heads)))}), got {config.ulysses}"
            )


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
