"""The keys of a model's YAML that fit it on a smaller card. Loads without torch.

An offload changes the place of weights and not the results: a clip is the same, bit for bit, with
and without it, and so is its id. Weights of fewer bits change the pixels and the id.
"""

from collections.abc import Sized
from importlib.util import find_spec
from typing import Literal, Protocol

from pipelines.errors import ModelConfigError

Offload = Literal["none", "text_encoder", "model", "group"]
StorageDtype = Literal["float8_e4m3fn", "float8_e5m2"]
Quantization = Literal[
    "int8_weight_only", "float8_weight_only", "bitsandbytes_8bit", "bitsandbytes_4bit"
]
# diffusers imports each of them where it finds it, which takes time and writes warnings
QUANTIZATION_LIBRARIES = ("torchao", "bitsandbytes", "gguf")


class MemoryKeys(Protocol):
    """The keys of a model's YAML that decide the place and the bits of its weights."""

    @property
    def device(self) -> str: ...
    @property
    def offload(self) -> Offload: ...
    @property
    def layerwise_casting(self) -> StorageDtype | None: ...
    @property
    def quantization(self) -> Quantization | None: ...
    @property
    def gguf(self) -> str | None: ...
    @property
    def gguf_2(self) -> str | None: ...
    @property
    def family(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def loras(self) -> Sized: ...
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
    if keys.quantization is not None:
        _refuse(f"quantization: {keys.quantization}", _quantization_conflicts(keys))
    for name, file in (("gguf", keys.gguf), ("gguf_2", keys.gguf_2)):
        if file is not None:
            _refuse(f"{name}: {file}", _gguf_conflicts(keys))
            if not file.endswith(".gguf"):
                raise ModelConfigError(f"{name} must be a file that ends in .gguf, not {file!r}")


def library_of(keys: MemoryKeys) -> str | None:
    """Return the library that quantizes or dequantizes, or None if none does."""
    if keys.gguf is not None or keys.gguf_2 is not None:
        return "gguf"
    if keys.quantization is None:
        return None
    return "bitsandbytes" if keys.quantization.startswith("bitsandbytes") else "torchao"


def check_library(keys: MemoryKeys) -> None:
    """Refuse a quantization on a machine without the library for it.

    Raises:
        ModelConfigError: the message has the command that installs it.
    """
    library = library_of(keys)
    if library is not None and find_spec(library) is None:
        key = "gguf" if library == "gguf" else f"quantization: {keys.quantization}"
        raise ModelConfigError(
            f"{key} needs the library {library}, which is not installed here: pip install {library}"
        )


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


def _quantization_conflicts(keys: MemoryKeys) -> dict[str, bool]:
    is_foreign = keys.quantization in ("bitsandbytes_8bit", "bitsandbytes_4bit")
    return {
        f"dtype: {keys.dtype}": keys.dtype != "bfloat16",  # the only one that torchao takes
        f"layerwise_casting: {keys.layerwise_casting}": keys.layerwise_casting is not None,
        "fuse_loras: true": keys.fuse_loras,
        "compile: true": keys.compile,
        # the weights cannot be replaced by copies
        f"offload: {keys.offload}": keys.offload in ("model", "group")
        or (is_foreign and keys.offload != "none"),
        "device: cpu": is_foreign and keys.device == "cpu",
        "loras": is_foreign and len(keys.loras) > 0,
    }


def _gguf_conflicts(keys: MemoryKeys) -> dict[str, bool]:
    return {
        "family: ltx2": keys.family == "ltx2",
        f"quantization: {keys.quantization}": keys.quantization is not None,
        f"layerwise_casting: {keys.layerwise_casting}": keys.layerwise_casting is not None,
        "compile: true": keys.compile,
        f"offload: {keys.offload}": keys.offload in ("model", "group"),
        "loras": len(keys.loras) > 0,
    }


def _refuse(key: str, conflicts: dict[str, bool]) -> None:
    for other, is_set in conflicts.items():
        if is_set:
            raise ModelConfigError(f"{key} does not work with {other}: leave one of them out")
