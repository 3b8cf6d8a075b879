"""Find the files of a model's LoRAs, and prove that they were made for this model.

It decides which file is the LoRA, and its revision. Loads without torch.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.files.weight_files import file_digest, hub_folder, shown
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.loras.lora_entries import (
    LoraLayers,
    TransformerShapes,
    is_saved_by_peft,
    read_lora,
)
from pipelines.catalog.loras.lora_settings import CONFIG_NAME
from pipelines.catalog.model_config import ModelConfig
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
        lora_layers(config, lora, weights.path, transformers)
        if not weights.revision.endswith(found := _digest(weights.path)):
            raise ModelFolderError(
                f"{title}: {weights.path} holds {found} here, not {weights.revision}"
            )


def lora_layers(
    config: ModelConfig, lora: LoraConfig, path: Path, transformers: TransformerShapes
) -> dict[str, LoraLayers]:
    """Return what a LoRA's file changes in each transformer that the YAML gives it to.

    Raises:
        ModelNotFoundError, ModelFolderError: as `read_lora`; or the model has no such transformer.
    """
    title = lora_title(config, lora)
    if lora.component == "all":
        targets = transformers
    elif lora.component in transformers:
        targets = {lora.component: transformers[lora.component]}
    else:
        raise ModelFolderError(
            f"{title} is for {lora.component}, and the model has {' and '.join(transformers)}; "
            "correct its component"
        )
    return read_lora(title, path, config.family, targets)


def lora_title(config: ModelConfig, lora: LoraConfig) -> str:
    """Return the name of a LoRA in messages."""
    return f"{config.name}: LoRA {lora.name}"


def _inspect_lora(
    config: ModelConfig, lora: LoraConfig, config_path: Path, transformers: TransformerShapes
) -> LoraWeights:
    path, commit = find_lora(lora_title(config, lora), lora, config_path)
    lora_layers(config, lora, path, transformers)
    return LoraWeights(path, f"{commit}{_digest(path)}")


def find_lora(title: str, lora: LoraConfig, config_path: Path) -> tuple[Path, str]:
    """Return a LoRA's file, and for a file of the hub the start of its revision."""
    source = resolve_source(lora.source, config_path)
    if isinstance(source, str):
        folder = hub_folder(title, source, lora.revision, lora.weight_name)
        return folder / (lora.weight_name or _only_weight_name(title, folder)), f"{folder.name}/"
    if lora.is_file and not source.is_dir():
        if not source.exists():
            parts = lora.source.split("/")
            raise ModelNotFoundError(
                f"{title}: the file {source} does not exist"
                + (
                    f"; a file of the hub is written source: {parts[0]}/{parts[1]}, "
                    f"weight_name: {'/'.join(parts[2:])}"
                    if len(parts) > 2 and parts[0].strip(".~")
                    else ""
                )
            )
        return source, ""
    if not source.is_dir():
        if source.exists():
            raise ModelFolderError(
                f"{title}: {source} must be a .safetensors file, or a folder that holds one"
            )
        raise ModelNotFoundError(f"{title}: the folder {source} does not exist")
    path = source / (lora.weight_name or _only_weight_name(title, source))
    if not path.exists():
        raise ModelNotFoundError(f"{title}: {path} does not exist")
    return path, ""


def _only_weight_name(title: str, folder: Path) -> str:
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    if DEFAULT_WEIGHT_NAME in names:
        return DEFAULT_WEIGHT_NAME
    if len(names) == 1:
        return names[0]
    names = names or sorted(
        path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")
    )
    raise ModelFolderError(
        f"{title}: {folder} holds {shown(names)}; say in weight_name which file is meant"
        if names
        else f"{title}: {folder} holds no .safetensors file, which a LoRA must be"
    )


def _digest(path: Path) -> str:
    """Return the digest of a LoRA's file, and of PEFT's settings beside it if they count."""
    files = [path, path.parent / CONFIG_NAME] if is_saved_by_peft(path) else [path]
    return "+".join(map(file_digest, files))
