"""LoRAs of a loaded diffusers pipeline, with a proof that no entry of them was left out.

Diffusers converts and loads them; for an entry that fits nothing it warns at most. A LoRA counts
as loaded if every entry of its file is in an adapter or holds zeros only, and no adapter holds
anything else.
"""

import warnings
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipelines.catalog.lora_config import LoraConfig
from pipelines.catalog.lora_entries import shown
from pipelines.catalog.loras import LoraWeights, lora_title
from pipelines.catalog.model_config import ModelConfig
from pipelines.context_parallel.plans import transformers_of
from pipelines.errors import ModelFolderError

_PREFIX = "transformer."  # diffusers' converters give it to all names, for each transformer


def load_loras(pipeline: Any, config: ModelConfig, loras: tuple[LoraWeights, ...]) -> None:
    """Load LoRAs that `pipelines.catalog.model_folder.inspect_model` accepted, with their weights.

    Unfused LoRAs are adapters of the pipeline under their names. Fused LoRAs are added to its
    weights and leave no adapter. A model with two transformers gets a LoRA in both unless its YAML
    names one.

    Raises:
        ModelFolderError: a LoRA, or a part of it, does not fit the model.
    """
    if not config.loras:
        return
    for lora, weights in zip(config.loras, loras, strict=True):
        _load_lora(pipeline, lora, weights, lora_title(config, lora))
    names = [lora.name for lora in config.loras]
    pipeline.set_adapters(names, [lora.weight for lora in config.loras])
    components = _components(pipeline, "all")
    for component in components:
        # A LoRA that was saved with dropout is loaded in training mode.
        getattr(pipeline, component).eval()
    if config.fuse_loras:
        try:
            pipeline.fuse_lora(components=components, adapter_names=names, safe_fusing=True)
        except ValueError as error:
            raise ModelFolderError(f"{config.name}: its LoRAs cannot be fused: {error}") from error
        pipeline.unload_lora_weights()


def _components(pipeline: Any, component: str) -> list[str]:
    return list(transformers_of(pipeline)) if component == "all" else [component]


def _load_lora(pipeline: Any, lora: LoraConfig, weights: LoraWeights, title: str) -> None:
    if hasattr(torch.nn.ModuleDict, lora.name):
        raise ModelFolderError(
            f"{title}: torch has another use for the name {lora.name}; choose another"
        )
    try:
        saved = load_file(weights.path)
        converted: dict[str, torch.Tensor] = pipeline.lora_state_dict(dict(saved))
        with warnings.catch_warnings():
            # A second LoRA is intended.
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            for component in _components(pipeline, lora.component):
                pipeline.load_lora_weights(
                    weights.path.parent,
                    weight_name=weights.path.name,
                    adapter_name=lora.name,
                    use_safetensors=True,
                    local_files_only=True,
                    **({"low_cpu_mem_usage": False} if _has_biases_in_part(converted) else {}),
                    **({"load_into_transformer_2": True} if component == "transformer_2" else {}),
                )
    except (ValueError, RuntimeError, KeyError, TypeError, OSError, SafetensorError) as error:
        raise ModelFolderError(
            f"{title}: {weights.path} does not fit the model: {error}"
        ) from error
    _refuse_left_out(title, saved, converted)
    for component in _components(pipeline, lora.component):
        _prove_loaded(f"{title}: {component}", getattr(pipeline, component), lora.name, converted)


def _has_biases_in_part(converted: dict[str, torch.Tensor]) -> bool:
    """Return True if some but not all layers of a LoRA have a bias.

    PEFT gives a bias to all layers or to none. Biases that the file lacks would then stay on the
    meta device, without memory, instead of being zero.
    """
    num_biases = sum(key.endswith(".lora_B.bias") for key in converted)
    return 0 < num_biases < sum(key.endswith(".lora_B.weight") for key in converted)


def _refuse_left_out(
    title: str, saved: dict[str, torch.Tensor], converted: dict[str, torch.Tensor]
) -> None:
    """Refuse entries that diffusers ignores.

    In Wan's own layout, diffusers ignores each entry that is neither low-rank nor the bias of a
    layer that has a LoRA.
    """
    kept = {id(tensor) for tensor in converted.values()}
    differences = {
        key: tensor for key, tensor in saved.items() if key.endswith((".diff", ".diff_b"))
    }
    left_out = [
        key for key, tensor in differences.items() if id(tensor) not in kept and tensor.any()
    ]
    if left_out:
        raise ModelFolderError(
            f"{title} changes weights that diffusers cannot change by a LoRA: {shown(left_out)}; "
            "remove these entries"
        )


def _prove_loaded(
    title: str, transformer: Any, name: str, converted: dict[str, torch.Tensor]
) -> None:
    loaded: dict[str, torch.Tensor] = {}
    for key, parameter in transformer.named_parameters():
        matrix, _, part = key.rpartition(f".{name}.")
        if matrix.endswith((".lora_A", ".lora_B")):
            loaded[f"{matrix}.{part}"] = parameter
    if unused := [key for key in converted if key.removeprefix(_PREFIX) not in loaded]:
        raise ModelFolderError(f"{title} has no layer for {shown(unused)}")
    invented = [
        key for key, tensor in loaded.items() if _PREFIX + key not in converted and tensor.any()
    ]
    if invented:
        raise ModelFolderError(f"{title} needs {shown(invented)}, which the LoRA does not have")
    if not any(tensor.any() for key, tensor in loaded.items() if ".lora_B." in key):
        raise ModelFolderError(f"{title} is unchanged: the LoRA holds zeros only")
