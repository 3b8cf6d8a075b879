"""The bytes of a weight once it is loaded: its dtype then, by its component and its name.

Loads without torch.
"""

import re
from collections import Counter
from collections.abc import Mapping
from math import prod

from pipelines.catalog.files.safetensors_file import FLOAT_BYTES
from pipelines.catalog.keys.memory_config import Quantization
from pipelines.catalog.model_config import ModelConfig

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# WanTransformer3DModel keeps these in float32; encoders of images and parts for sound are float32.
_WAN_FLOAT32 = re.compile(r"(^|\.)(rope|time_embedder|scale_shift_table|norm1|norm2|norm3)(\.|$)")
_FLOAT32_COMPONENTS = ("image_encoder", "audio_vae", "vocoder")
# Layerwise casting leaves these as they are: diffusers' defaults, and those of Wan. A table of
# shifts belongs to no layer.
_NOT_CAST = re.compile(r"pos_embed|patch_embed|norm|^proj_in\.|^proj_out\.|scale_shift_table")
_BLOCK = re.compile(r"\w+\.\d+\.")  # `blocks.0.`, of a list right below the transformer
_WAN_NOT_CAST = re.compile(r"condition_embedder")


def loaded_bytes(
    config: ModelConfig, component: str, name: str, dtype: str, shape: tuple[int, ...], size: int
) -> int:
    """Return the bytes of a weight in the dtype that it has once loaded.

    Args:
        dtype: dtype in its file, as safetensors names it.
        size: bytes in its file.
    """
    if dtype not in FLOAT_BYTES:
        return size
    if config.layerwise_casting is not None and is_cast(config.family, component, name):
        return prod(shape)
    if config.quantization is not None and is_quantized(config.family, component, name, shape):
        return _quantized_bytes(config.quantization, shape)
    wanted = config.vae_dtype if component == "vae" else config.dtype
    if component in _FLOAT32_COMPONENTS or (
        config.family == "wan" and component.startswith("transformer") and _WAN_FLOAT32.search(name)
    ):
        wanted = "float32"
    return prod(shape) * DTYPE_BYTES[wanted]


def streamed_bytes(sizes: Mapping[str, int]) -> int:
    """Return the bytes of a transformer that are on the device if its blocks come in turn.

    They are all that is outside of blocks, the block that computes and the next one.

    Args:
        sizes: bytes of each weight, by its name.
    """
    blocks: Counter[str] = Counter()
    outside = 0
    for name, size in sizes.items():
        if block := _BLOCK.match(name):
            blocks[block[0]] += size
        else:
            outside += size
    return outside + sum(size for _, size in blocks.most_common(2))


def is_quantized(family: str, component: str, name: str, shape: tuple[int, ...]) -> bool:
    """Return True if a weight is that of a linear layer that is quantized."""
    return (
        component.startswith("transformer")
        and name.endswith(".weight")
        and len(shape) == 2
        and not (family == "wan" and _WAN_FLOAT32.search(name))
    )


def _quantized_bytes(quantization: Quantization, shape: tuple[int, ...]) -> int:
    if quantization == "bitsandbytes_4bit":  # a float32 for each 64 weights
        return prod(shape) // 2 + prod(shape) // 64 * 4
    zero_point = 1 if quantization == "int8_weight_only" else 0
    return prod(shape) + shape[0] * (4 + zero_point)  # a float32 for each row


def is_cast(family: str, component: str, name: str) -> bool:
    """Return True if layerwise casting keeps a weight in eight bits."""
    return component.startswith("transformer") and not (
        _NOT_CAST.search(name) or (family == "wan" and _WAN_NOT_CAST.search(name))
    )
