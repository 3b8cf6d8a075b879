"""Find the files of a model's LoRAs, and prove that they were made for this model.

It decides which file of a folder is the LoRA, and its revision. Loads without torch.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.catalog.lora_config import LoraConfig
from pipelines.catalog.lora_entries import TransformerShapes, check_lora
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.sources import resolve_source
from pipelines.catalog.weight_files import file_digest, hub_folder
from pipelines.errors import ModelFolderError, ModelNotFoundError

DEFAULT_WEIGHT_NAME = "pytorch_lora_weights.safetensors"  # as diffusers saves them


@dataclass(frozen=True)
class LoraWeights:
    """A LoRA's file that is fit to load, and its revision."""

    path: Path
    revision: str


def inspect_loras(
    config: ModelConfig, config_path: Path, transformers: TransformerShapes
) -> tuple[LoraWeights, ...]:
    """Check the LoRAs that a model's YAML names.

    Args:
        config: model of the LoRAs.
        config_path: path of its YAML; relative folders are relative to it.
        transformers: shapes of the model's transformers.

    Returns:
        The files in the YAML's order. A file's revision is its digest; for a file of the hub the
        commit stands before it.

    Raises:
        ModelNotFoundError: a file is not on this machine; the message has the command that fetches
            it.
        ModelFolderError: a file is broken, unsafe, or made for another model.
    """
    return tuple(_inspect_lora(config, lora, config_path, transformers) for lora in config.loras)


def verify_loras(
    config: ModelConfig, loras: tuple[LoraWeights, ...], transformers: TransformerShapes
) -> None:
    """Prove, on the machine that loads them, that the LoRAs are those that were inspected.

    Raises:
        ModelNotFoundError: a file does not exist on this machine.
        ModelFolderError: a file is broken here, or holds another LoRA.
    """
    for lora, weights in zip(config.loras, loras, strict=True):
        title = lora_title(config, lora)
        if not weights.path.exists():
            raise ModelNotFoundError(f"{title}: {weights.path} does not exist on this machine")
        check_lora(title, weights.path, config.family, _targets(title, lora, transformers))
        if not weights.revision.endswith(found := file_digest(weights.path)):
            raise ModelFolderError(
                f"{title}: {weights.path} holds {found} here, not {weights.revision}"
            )


def lora_title(config: ModelConfig, lora: LoraConfig) -> str:
    """Return the name of a LoRA in messages."""
    return f"{config.name}: LoRA {lora.name}"


def _inspect_lora(
    config: ModelConfig, lora: LoraConfig, config_path: Path, transformers: TransformerShapes
) -> LoraWeights:
    title = lora_title(config, lora)
    source = resolve_source(lora.source, config_path)
    if isinstance(source, Path):
        if not source.is_dir():
            raise ModelNotFoundError(f"{title}: the folder {source} does not exist")
        folder, commit = source, ""
    else:
        folder = hub_folder(title, source, lora.revision, lora.weight_name)
        commit = f"{folder.name}/"
    path = folder / (lora.weight_name or _only_weight_name(title, folder))
    if not path.exists():
        raise ModelNotFoundError(f"{title}: {path} does not exist")
    check_lora(title, path, config.family, _targets(title, lora, transformers))
    return LoraWeights(path, f"{commit}{file_digest(path)}")


def _only_weight_name(title: str, folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if DEFAULT_WEIGHT_NAME in names:
        return DEFAULT_WEIGHT_NAME
    if len(names) != 1:
        raise ModelFolderError(
            f"{title}: {folder} holds {', '.join(names)}; say in weight_name which file is meant"
            if names
            else f"{title}: {folder} holds no .safetensors file, which a LoRA must be"
        )
    return names[0]


def _targets(title: str, lora: LoraConfig, transformers: TransformerShapes) -> TransformerShapes:
    if lora.component == "all":
        return transformers
    if lora.component not in transformers:
        raise ModelFolderError(
            f"{title} is for {lora.component}, and the model has {' and '.join(transformers)}; "
            "correct its component"
        )
    return {lora.component: transformers[lora.component]}
