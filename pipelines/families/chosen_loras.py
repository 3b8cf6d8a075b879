"""The LoRAs of a loaded pipeline, switched to those that each clip chooses.

Adapters stay loaded, and a switch sets their weights. Fused LoRAs are parts of the weights: a
switch reads the transformers' own weights from their files again and fuses the chosen LoRAs into
them, so that no rounding is left of the LoRAs before. Either way the pipeline then computes as one
that was loaded with only the chosen LoRAs, to the bit.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pipelines.catalog.files.weight_files import weight_files
from pipelines.catalog.keys.lora_config import default_choice
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.context_parallel.plans import transformers_of
from pipelines.errors import ModelFolderError
from pipelines.families.lora_adapters import LoraAdapters
from pipelines.lora_choice import LoraChoice

Choice = tuple[LoraChoice, ...]


class ChosenLoras:
    """The LoRAs that a model's YAML names, on a pipeline of diffusers, and those that are on."""

    def __init__(self, pipeline: Any, config: ModelConfig, weights: ModelWeights) -> None:
        """Load the LoRAs that `pipelines.catalog.model_folder.inspect_model` accepted.

        Raises:
            ModelFolderError: a LoRA, or a part of it, does not fit the model.
        """
        self._pipeline = pipeline
        self._config = config
        self._weights = weights
        self._current: Choice | None = default_choice(config.loras)
        if config.fuse_loras:
            self._fuse(self._current)
        elif config.loras:
            self._adapters = LoraAdapters(pipeline, config, weights.loras)
            self._adapters.set_weights({one.name: one.weight for one in self._current})

    def choose(self, choice: Choice | None) -> None:
        """Switch to the LoRAs of a clip; None stands for those that are on by default.

        Raises:
            ModelFolderError: the files of a fused model are not what they were.
        """
        wanted = default_choice(self._config.loras) if choice is None else choice
        if wanted == self._current:
            return
        before, self._current = self._current, None  # unknown, should the switch fail
        if not self._config.fuse_loras:
            self._adapters.set_weights({one.name: one.weight for one in wanted})
        else:
            if before != ():
                self._restore()
            self._fuse(wanted)
        self._current = wanted

    def _fuse(self, choice: Choice) -> None:
        """Fuse the chosen LoRAs into weights that have none."""
        chosen = {one.name: one.weight for one in choice}
        pairs = [
            (replace(lora, weight=chosen[lora.name]), weights)
            for lora, weights in zip(self._config.loras, self._weights.loras, strict=True)
            if lora.name in chosen
        ]
        if pairs:
            loras, files = zip(*pairs, strict=True)
            try:
                LoraAdapters(self._pipeline, replace(self._config, loras=loras), files)
            except ModelFolderError:
                self._pipeline.unload_lora_weights()
                raise

    def _restore(self) -> None:
        """Copy the transformers' own weights from their files."""
        for component, transformer in transformers_of(self._pipeline).items():
            _restore(transformer, self._weights.folder / component)


@torch.no_grad()
def _restore(transformer: Any, folder: Path) -> None:
    values: dict[str, torch.Tensor] = transformer.state_dict()  # they share memory
    left = set(values)
    try:
        for path in weight_files(folder):
            with safe_open(path, "pt") as file:
                for name in left.intersection(file.keys()):
                    values[name].copy_(file.get_tensor(name))
                    left.remove(name)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelFolderError(f"{folder} cannot be read again: {error}") from error
    if left:
        raise ModelFolderError(f"{folder} lacks weights that it had: {', '.join(sorted(left)[:3])}")
