"""One component of a folder of weights: nothing in it may be code, a pipe, or saved quantized.

Loads without torch. `catalog.model_folder` decides which components a model must have.
"""

import stat
from pathlib import Path
from typing import Any

from pipelines.catalog.files.safetensors_file import LFS_POINTER, read_header, refuse_pointer
from pipelines.catalog.files.weight_files import read_json, weight_files
from pipelines.errors import ModelFolderError
from pipelines.regular_files import open_regular_file, refuse_special

VOCABULARIES = ("tokenizer.json", "vocab.json")  # large, and no library reads a class from them


def check_component(folder: Path, *, has_weights: bool, has_files: bool = True) -> None:
    """Refuse the folder of one component that cannot be loaded whole, from safetensors.

    Args:
        has_weights: True if the component has weights.
        has_files: False for a description, which lacks the weights alone.

    Raises:
        ModelNotFoundError: a file is a git-lfs pointer.
        ModelFolderError: the folder is missing, broken or unsafe.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"{folder.parent}: the folder {folder.name!r} is missing")
    for path in sorted(folder.iterdir()):
        _check_kind(path)
        if not has_weights and path.is_file():
            with open_regular_file(path) as file:
                refuse_pointer(path, file.peek(len(LFS_POINTER)))
        is_config = path.suffix == ".json" and path.name not in VOCABULARIES
        if is_config and "auto_map" in read_json(path):
            raise ModelFolderError(
                f"{path} asks for code of its own (auto_map), which is never run; use a model "
                "whose classes are in diffusers and transformers"
            )
    if not has_weights:
        return
    _check_quantization(folder / "config.json")
    for shard in weight_files(folder) if has_files else ():
        read_header(shard)


def _check_quantization(path: Path) -> None:
    """Refuse weights that were saved quantized, in which nothing has the shape of its config."""
    settings: Any = read_json(path).get("quantization_config")
    if settings is None:
        return
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    raise ModelFolderError(
        f"{path}: its weights were saved quantized by {method!r}, which is not loaded: use the "
        "weights before they were quantized, with quantization: int8_weight_only in the YAML"
    )


def _check_kind(path: Path) -> None:
    """Refuse a pipe or a device, which the libraries that load the folder would wait for."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            refuse_special(mode, path)
    except FileNotFoundError:  # a link to a part of a repository that was not downloaded
        return
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
