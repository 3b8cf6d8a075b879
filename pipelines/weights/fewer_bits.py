"""Transformers whose weights take fewer bits than they compute with.

Layerwise casting keeps each linear layer in a float of eight bits and makes `dtype` of it for the
time of its call. Diffusers decides which layers: not embeddings, norms, the first and the last one.
Quantization keeps the weight of each linear layer as whole numbers or floats of eight or four bits
with a scale for each row or group, by another library. It was run with torchao, on a CPU;
bitsandbytes, which needs a CUDA device, was not.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import BitsAndBytesConfig, GGUFQuantizationConfig, TorchAoConfig
from diffusers.loaders.single_file_utils import SingleFileComponentError
from diffusers.quantizers import PipelineQuantizationConfig

from pipelines.catalog.files.gguf_file import GgufWeights
from pipelines.catalog.files.weight_files import read_json
from pipelines.catalog.keys.memory_config import Quantization, check_library
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.context_parallel.plans import transformers_of
from pipelines.errors import ModelConfigError, ModelFolderError


def cast_layers(pipeline: Any, config: ModelConfig) -> None:
    """Keep the transformers' layers in the dtype that the model's YAML names, if it names one.

    Call it when the LoRAs are loaded, which keep their own dtype. It cannot be taken back.
    """
    if config.layerwise_casting is None:
        return
    for transformer in transformers_of(pipeline).values():
        transformer.enable_layerwise_casting(
            storage_dtype=getattr(torch, config.layerwise_casting),
            compute_dtype=getattr(torch, config.dtype),
        )


def quantization_settings(config: ModelConfig, components: Iterable[str]) -> dict[str, Any]:
    """Return the arguments by which diffusers quantizes the transformers while it reads them.

    Args:
        components: names of the transformers in the folder.

    Raises:
        ModelConfigError: the library is missing, or the machine has no CUDA device for it.
    """
    if config.quantization is None:
        return {}
    check_library(config)
    settings = _settings(config.quantization, getattr(torch, config.dtype))
    mapping: dict[str, Any] = dict.fromkeys(components, settings)
    return {"quantization_config": PipelineQuantizationConfig(quant_mapping=mapping)}


def _settings(quantization: Quantization, dtype: torch.dtype) -> Any:
    if quantization in ("int8_weight_only", "float8_weight_only"):
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig

        is_int = quantization == "int8_weight_only"
        return TorchAoConfig(
            Int8WeightOnlyConfig(version=2) if is_int else Float8WeightOnlyConfig()
        )
    if not torch.cuda.is_available():
        raise ModelConfigError(
            f"quantization: {quantization} needs a CUDA device, and this machine has none: use "
            "int8_weight_only"
        )
    if quantization == "bitsandbytes_8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def read_ggufs(config: ModelConfig, weights: ModelWeights) -> dict[str, Any]:
    """Read the transformers that GGUF files hold, into the host's memory.

    Raises:
        ModelConfigError: the library is missing.
        ModelFolderError: a file is not that of the folder's transformer.
    """
    if not weights.ggufs:
        return {}
    check_library(config)
    index = read_json(weights.folder / "model_index.json")
    return {
        gguf.component: _read_gguf(config, weights.folder, gguf, index[gguf.component][1])
        for gguf in weights.ggufs
    }


def _read_gguf(config: ModelConfig, folder: Path, gguf: GgufWeights, class_name: str) -> Any:
    dtype = getattr(torch, config.dtype)
    try:
        transformer = getattr(diffusers, class_name).from_single_file(
            str(gguf.path),
            config=str(folder),
            subfolder=gguf.component,
            quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
            dtype=dtype,
            local_files_only=True,
        )
    except NotImplementedError as error:  # torch's for a tensor that got no values
        raise ModelFolderError(
            f"{gguf.path} lacks weights of the {gguf.component} of {folder}: it belongs to another "
            "model"
        ) from error
    except (ValueError, RuntimeError, KeyError, SingleFileComponentError) as error:
        raise ModelFolderError(
            f"{gguf.path} does not fit the {gguf.component} of {folder}: {error}"
        ) from error
    if len(gguf.sizes) > (num_weights := len(transformer.state_dict())):  # diffusers only warns
        raise ModelFolderError(
            f"{gguf.path} holds {len(gguf.sizes)} tensors and not the {num_weights} of the "
            f"{gguf.component} of {folder}: it belongs to another model"
        )
    return transformer
