"""The LoRAs of a loaded diffusers pipeline, and the weights that they have.

`pipelines.catalog.loras.lora_entries` decides what each file changes. Matrices become adapters of
diffusers; a change that a file holds whole, such as a bias, is added to its parameter.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pipelines.catalog.files.weight_files import shown
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.loras.lora_entries import LoraLayers
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_loras import LoraWeights, lora_layers, lora_title
from pipelines.context_parallel.plans import transformers_of
from pipelines.errors import ModelFolderError

Tensors = dict[str, torch.Tensor]


class LoraAdapters:
    """The LoRAs that a model's YAML names, on a pipeline of diffusers."""

    def __init__(self, pipeline: Any, config: ModelConfig, loras: tuple[LoraWeights, ...]) -> None:
        """Load LoRAs that `pipelines.catalog.model_folder.inspect_model` accepted, all switched on.

        A model with two transformers gets a LoRA in both unless its YAML names one. Fused LoRAs
        are added to the weights and leave no adapter.

        Raises:
            ModelFolderError: a LoRA, or a part of it, does not fit the model.
        """
        self._pipeline = pipeline
        self._config = config
        self._transformers: dict[str, Any] = transformers_of(pipeline)
        # Adapters put modules in the place of others; the parameters stay the same objects.
        self._parameters = {
            component: dict(transformer.named_parameters())
            for component, transformer in self._transformers.items()
        }
        # Component, parameter -> its own values, and the change of each LoRA.
        self._own: dict[tuple[str, str], torch.Tensor] = {}
        self._changes: dict[tuple[str, str], Tensors] = {}
        for lora, weights in zip(config.loras, loras, strict=True):
            self._load(lora, weights)
        if config.loras:
            self.set_weights({lora.name: lora.weight for lora in config.loras})
            if config.fuse_loras:
                self._fuse()

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Give LoRAs their weights, by name; a LoRA that is not named, or has the weight 0, is off.

        Not for fused LoRAs.
        """
        names = [lora.name for lora in self._config.loras if weights.get(lora.name)]
        if names:
            self._pipeline.enable_lora()
            self._pipeline.set_adapters(
                [adapter_name(name) for name in names], [weights[name] for name in names]
            )
        else:
            self._pipeline.disable_lora()
        for (component, parameter), changes in self._changes.items():
            own = self._own[component, parameter]
            value = own.float()
            for name in names:
                if name in changes:
                    value = value + weights[name] * changes[name]
            # rounded as at the load, before layerwise casting rounds to fewer bits
            self._parameters[component][parameter].data.copy_(value.to(own.dtype))

    def _load(self, lora: LoraConfig, weights: LoraWeights) -> None:
        title = lora_title(self._config, lora)
        shapes = {
            component: {name: tuple(parameter.shape) for name, parameter in parameters.items()}
            for component, parameters in self._parameters.items()
        }
        layers = lora_layers(self._config, lora, weights.path, shapes)
        try:
            saved = load_file(weights.path)
        except (OSError, SafetensorError) as error:
            raise ModelFolderError(f"{title}: {weights.path} cannot be read: {error}") from error
        for component, changed in layers.items():
            adapter = _adapter(changed, saved)
            try:
                with warnings.catch_warnings():
                    # A second LoRA is intended.
                    warnings.filterwarnings("ignore", "Already found a `peft_config`")
                    self._transformers[component].load_lora_adapter(
                        adapter,
                        prefix=None,
                        adapter_name=adapter_name(lora.name),
                        low_cpu_mem_usage=True,
                    )
            except (ValueError, RuntimeError, KeyError, TypeError) as error:
                raise ModelFolderError(
                    f"{title}: {weights.path} does not fit the model: {error}"
                ) from error
            _prove_loaded(f"{title}: {component}", self._transformers[component], lora, adapter)
            self._add_changes(component, lora, changed, saved)

    def _add_changes(
        self, component: str, lora: LoraConfig, changed: LoraLayers, saved: Tensors
    ) -> None:
        for name, difference in changed.differences.items():
            parameter = self._parameters[component][name].data
            self._own.setdefault((component, name), parameter.clone())
            self._changes.setdefault((component, name), {})[lora.name] = (
                saved[difference.entry].to(parameter.device, torch.float32) * difference.scale
            )

    def _fuse(self) -> None:
        names = [adapter_name(lora.name) for lora in self._config.loras]
        for component, parameter in self._changes:
            if not self._parameters[component][parameter].isfinite().all():
                raise ModelFolderError(
                    f"{self._config.name}: its LoRAs cannot be fused: {component}'s {parameter} "
                    "would be infinite"
                )
        try:
            self._pipeline.fuse_lora(
                components=list(self._transformers), adapter_names=names, safe_fusing=True
            )
        except ValueError as error:
            raise ModelFolderError(
                f"{self._config.name}: its LoRAs cannot be fused: {error}"
            ) from error
        self._pipeline.unload_lora_weights()
        self._own.clear()
        self._changes.clear()


def adapter_name(lora: str) -> str:
    """Return the name of a LoRA's adapter: torch has a use of its own for names such as `half`."""
    return f"lora-{lora}"


def _adapter(layers: LoraLayers, saved: Tensors) -> Tensors:
    """Return the matrices of a LoRA as diffusers names them, with their scale in them."""
    adapter: Tensors = {}
    for module, matrices in layers.matrices.items():
        down, up = saved[matrices.down], saved[matrices.up]
        if matrices.scale != 1:
            # Both matrices take a part of a small scale, so that neither underflows in float16.
            scale_down, scale_up = matrices.scale, 1.0
            while 0 < scale_down * 2 < scale_up:
                scale_down, scale_up = scale_down * 2, scale_up / 2
            down, up = down.float() * scale_down, up.float() * scale_up
        adapter[f"{module}.lora_A.weight"] = down
        adapter[f"{module}.lora_B.weight"] = up
    return adapter


def _prove_loaded(title: str, transformer: Any, lora: LoraConfig, adapter: Tensors) -> None:
    """Raise an error for a matrix without a layer; diffusers warns at most."""
    name = adapter_name(lora.name)
    loaded = {key for key, _ in transformer.named_parameters() if f".{name}." in key}
    expected = {key.replace(".weight", f".{name}.weight"): key for key in adapter}
    if left_out := [key for full_name, key in expected.items() if full_name not in loaded]:
        raise ModelFolderError(f"{title} has no layer for {shown(left_out)}")
