"""The keys of a model's YAML that fit it on a smaller card. Loads without torch.

An offload changes the place of weights and not the results: a clip is the same, bit for bit, with
and without it, and so is its id. Weights of fewer bits change the pixels and the id.
"""

from typing import Literal, Protocol

from pipelines.errors import ModelConfigError

Offload = Literal["none", "text_encoder", "model", "group"]
StorageDtype = Literal["float8_e4m3fn", "float8_e5m2"]


class MemoryKeys(Protocol):
    """The keys of a model's YAML that decide the place and the bits of its weights."""

    @property
    def device(self) -> str: ...
    @property
    def offload(self) -> Offload: ...
    @property
    def layerwise_casting(self) -> StorageDtype | None: ...
    @property
    def fuse_loras(self) -> bool: ...
    @property
    def compile(self) -> bool: ...
    @property
    def first_block_cache(self) -> float | None: ...


def check_memory_keys(keys: MemoryKeys) -> None:
    """Refuse keys that would change nothing, and those that do not work together.

    Raises:
        ModelConfigError: the message names the key to leave out.
    """
    _check_offload(keys)
    if keys.layerwise_casting is not None:
        _refuse(f"layerwise_casting: {keys.layerwise_casting}", _casting_conflicts(keys))


def _check_offload(keys: MemoryKeys) -> None:
    if keys.offload == "none":
        return
    if keys.device == "cpu":
        raise ModelConfigError(
            f"offload: {keys.offload} needs a CUDA device, and the model has device: cpu: "
            "leave it out"
        )
    if keys.offload != "text_encoder":
        _refuse(f"offload: {keys.offload}", _offload_conflicts(keys))


def _offload_conflicts(keys: MemoryKeys) -> dict[str, bool]:
    return {
        # the sum of a fused LoRA rounds differently on the host
        "fuse_loras: true": keys.fuse_loras,
        # it skips blocks, which then would be fetched in vain and never released
        f"first_block_cache: {keys.first_block_cache}": keys.offload == "group"
        and keys.first_block_cache is not None,
        # diffusers' hooks on each block break the graph
        "compile: true": keys.offload == "group" and keys.compile,
    }


def _casting_conflicts(keys: MemoryKeys) -> dict[str, bool]:
    return {
        # LoRAs would be added to weights that were rounded already
        "fuse_loras: true": keys.fuse_loras,
        # diffusers' hooks on each layer break the graph
        "compile: true": keys.compile,
    }


def _refuse(key: str, conflicts: dict[str, bool]) -> None:
    for other, is_set in conflicts.items():
        if is_set:
            raise ModelConfigError(f"{key} does not work with {other}: leave one of them out")
