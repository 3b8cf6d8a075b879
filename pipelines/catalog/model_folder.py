"""Find a model's folder and prove, before a run starts, that it can be loaded and is safe to load.

Loads without torch: it reads names, sizes, JSON and safetensors headers. It accepts only weights in
safetensors and classes of diffusers and transformers; a folder cannot bring code of its own.
"""

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.catalog.file_digests import sha256_of_all
from pipelines.catalog.lora_entries import TransformerShapes
from pipelines.catalog.loras import LoraWeights, inspect_loras, verify_loras
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.safetensors_file import LFS_POINTER, read_header, refuse_pointer
from pipelines.catalog.sources import resolve_source
from pipelines.catalog.weight_files import (
    LOCAL_REVISION,
    PIPELINE_FILES,
    hub_folder,
    read_json,
    weight_files,
)
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.load_progress import LoadProgress
from pipelines.regular_files import open_regular_file, refuse_special

PIPELINE_CLASSES = {"wan": "WanPipeline", "ltx": "LTXPipeline"}
COMPONENT_CLASSES: dict[str, dict[str, frozenset[str]]] = {
    family: {
        "tokenizer": frozenset({"T5Tokenizer", "T5TokenizerFast"}),
        "text_encoder": frozenset({encoder}),
        "vae": frozenset({vae}),
        "transformer": frozenset({transformer}),
        "scheduler": frozenset({"UniPCMultistepScheduler", "FlowMatchEulerDiscreteScheduler"}),
        **({"transformer_2": frozenset({transformer})} if family == "wan" else {}),
    }
    for family, encoder, vae, transformer in (
        ("wan", "UMT5EncoderModel", "AutoencoderKLWan", "WanTransformer3DModel"),
        ("ltx", "T5EncoderModel", "AutoencoderKLLTXVideo", "LTXVideoTransformer3DModel"),
    )
}
COMPONENTS_WITH_WEIGHTS = ("text_encoder", "vae", "transformer", "transformer_2")
OPTIONAL_COMPONENTS = ("transformer_2",)
VOCABULARIES = ("tokenizer.json", "vocab.json")  # large, and no library reads a class from them


@dataclass(frozen=True)
class ModelWeights:
    """A folder that is fit to load, its revision, and its LoRAs in the YAML's order."""

    folder: Path
    revision: str
    loras: tuple[LoraWeights, ...] = ()


def inspect_model(
    config: ModelConfig, config_path: Path, progress: LoadProgress | None = None
) -> ModelWeights:
    """Check the weights that a model's YAML names.

    Args:
        config: model to check.
        config_path: path of its YAML; relative folders are relative to it.
        progress: receives the bytes to hash, and those that are hashed.

    Returns:
        The folder, its revision (the hub's commit, or the fingerprint of a local folder), and the
        LoRAs.

    Raises:
        ModelNotFoundError: the weights are not on this machine; the message has the command that
            fetches them.
        ModelFolderError: the weights are broken, incomplete or unsafe.
    """
    source = resolve_source(config.source, config_path)
    if isinstance(source, Path):
        if source.is_file():
            raise ModelNotFoundError(
                f"{config.name}: {source} is a file; a model is a folder as diffusers saves it, "
                "with model_index.json"
            )
        if not source.is_dir():
            raise ModelNotFoundError(f"{config.name}: the model folder {source} does not exist")
        folder = source
    else:
        folder = hub_folder(config.name, source, config.revision, patterns=PIPELINE_FILES)
    check_folder(folder, config.family)
    loras = inspect_loras(config, config_path, transformer_shapes(folder)) if config.loras else ()
    revision = (
        f"{LOCAL_REVISION}{fingerprint(folder, progress)[:32]}"
        if isinstance(source, Path)
        else folder.name
    )
    return ModelWeights(folder, revision, loras)


def check_folder(folder: Path, family: Literal["wan", "ltx"]) -> None:
    """Refuse a folder that is not a complete diffusers pipeline of the family, in safetensors.

    Raises:
        ModelNotFoundError: a file is a git-lfs pointer.
        ModelFolderError: a part is missing, broken, unsafe, or of another class.
    """
    index = read_json(folder / "model_index.json")
    expected_class = PIPELINE_CLASSES[family]
    if index.get("_class_name") != expected_class:
        raise ModelFolderError(
            f"{folder}: model_index.json is for {index.get('_class_name')!r}, "
            f"not {expected_class!r}"
        )
    for component, allowed in COMPONENT_CLASSES[family].items():
        entry: Any = index.get(component)
        if component in OPTIONAL_COMPONENTS and entry in (None, [None, None]):
            continue
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and isinstance(entry[1], str)
            and entry[0] in ("diffusers", "transformers")
        ):
            raise ModelFolderError(
                f"{folder}: model_index.json must name a diffusers or transformers class for "
                f"{component}, not {entry!r}"
            )
        if entry[1] not in allowed:
            raise ModelFolderError(
                f"{folder}: {component} must be {' or '.join(sorted(allowed))}, "
                f"not {entry[1]!r} (model_index.json)"
            )
        _check_component(folder / component, component)


def _check_component(folder: Path, component: str) -> None:
    if not folder.is_dir():
        raise ModelFolderError(f"{folder.parent}: the folder {component!r} is missing")
    has_weights = component in COMPONENTS_WITH_WEIGHTS
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
    read_json(folder / "config.json")
    for shard in weight_files(folder):
        read_header(shard)


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


def transformer_shapes(folder: Path) -> TransformerShapes:
    """Return the shapes of the weights of each transformer in a folder."""
    index = read_json(folder / "model_index.json")
    return {
        component: {
            name: shape
            for shard in weight_files(folder / component)
            for name, shape in read_header(shard).shapes.items()
        }
        for component in ("transformer", "transformer_2")
        if index.get(component) not in (None, [None, None])
    }


def fingerprint(folder: Path, progress: LoadProgress | None = None) -> str:
    """Return the SHA-256 of the names and content of a pipeline's files.

    Args:
        folder: an accepted folder.
        progress: receives the bytes to hash, and those that are hashed.
    """
    progress = progress or LoadProgress()
    digest = hashlib.sha256()
    files = [folder / "model_index.json"]
    for component in sorted({*COMPONENT_CLASSES["wan"], *COMPONENT_CLASSES["ltx"]}):
        files += [path for path in sorted((folder / component).glob("*")) if path.is_file()]
    sizes = [path.stat().st_size for path in files]
    progress.expect(sum(sizes))
    for path, size, content in zip(
        files, sizes, sha256_of_all(files, progress.advance), strict=True
    ):
        name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
        digest.update(name + f"\0{size}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def verify_weights(
    config: ModelConfig, weights: ModelWeights, progress: LoadProgress | None = None
) -> None:
    """Prove, on the machine that loads them, that the weights are those that were inspected.

    Args:
        config: the model.
        weights: the folder and LoRAs that were inspected.
        progress: receives the bytes to hash, and those that are hashed.

    Raises:
        ModelNotFoundError: the folder does not exist on this machine.
        ModelFolderError: the folder is broken here, or holds other weights.
    """
    if not weights.folder.is_dir():
        raise ModelNotFoundError(
            f"{config.name}: the model folder {weights.folder} does not exist on this machine"
        )
    check_folder(weights.folder, config.family)
    is_local = weights.revision.startswith(LOCAL_REVISION)
    found = (
        f"{LOCAL_REVISION}{fingerprint(weights.folder, progress)[:32]}"
        if is_local
        else weights.folder.name
    )
    if found != weights.revision:
        raise ModelFolderError(
            f"{config.name}: {weights.folder} holds revision {found} here, not {weights.revision}"
        )
    if config.loras:
        verify_loras(config, weights.loras, transformer_shapes(weights.folder))


def read_ahead(weights: ModelWeights) -> None:
    """Ask the system to read accepted weights from the disk now, since they are loaded soon."""
    folders = [weights.folder / name for name in COMPONENTS_WITH_WEIGHTS]
    files = [path for folder in folders if folder.is_dir() for path in weight_files(folder)]
    for path in [*files, *(lora.path for lora in weights.loras)]:
        with suppress(OSError), open_regular_file(path) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
