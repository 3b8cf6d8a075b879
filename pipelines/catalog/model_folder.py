"""Find a model's folder and prove, before a run starts, that it can be loaded and is safe to load.

Loads without torch: it reads names, sizes, JSON and safetensors headers. It accepts only weights in
safetensors and classes of diffusers and transformers; a folder cannot bring code of its own.
"""

import hashlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.catalog.files.component_files import check_component
from pipelines.catalog.files.file_digests import sha256_of_all
from pipelines.catalog.files.gguf_file import GgufWeights, inspect_gguf
from pipelines.catalog.files.safetensors_file import read_header
from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.files.weight_files import (
    LOCAL_REVISION,
    PIPELINE_FILES,
    download_command,
    has_no_weights,
    hub_folder,
    read_json,
    weight_files,
)
from pipelines.catalog.folder_facts import check_facts
from pipelines.catalog.keys.memory_config import check_library
from pipelines.catalog.keys.pipeline_classes import (
    ALL_COMPONENTS,
    COMPONENTS_WITH_WEIGHTS,
    LIBRARIES,
    PipelineClass,
)
from pipelines.catalog.loras.lora_entries import TransformerShapes
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_loras import LoraWeights, inspect_loras
from pipelines.catalog.upsampler_files import UpsamplerWeights, inspect_upsampler
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.load_progress import LoadProgress

if TYPE_CHECKING:
    from pipelines.catalog.description import Described


@dataclass(frozen=True)
class ModelWeights:
    """A folder that is fit to load, its revision, and its LoRAs in the YAML's order.

    Args:
        ggufs: transformers that are read from files of their own.
        upsampler: latent upsampler of a model with a second stage.
        described: the description of weights that are not on this machine. The folder then holds
            configs and tokenizer alone, the LoRAs have no files, and `worker_weights` finds both
            on the machine that loads them.
    """

    folder: Path
    revision: str
    loras: tuple[LoraWeights, ...] = ()
    upsampler: UpsamplerWeights | None = None
    described: "Described | None" = None
    ggufs: tuple[GgufWeights, ...] = ()


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
    check_library(config)
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
        if has_no_weights(folder):
            raise ModelNotFoundError(
                f"{config.name}: {folder} holds no weights; fetch them with: "
                f"{download_command(source, config.revision)}"
            )
    check_folder(folder, config.pipeline_class, without=config.gguf_files)
    check_facts(config, folder)
    if unknown := [name for name in config.gguf_files if name not in transformer_names(folder)]:
        raise ModelFolderError(f"{config.name}: {folder} has no {unknown[0]}: leave gguf_2 out")
    ggufs = tuple(inspect_gguf(*entry, config_path) for entry in config.gguf_files.items())
    loras = inspect_loras(config, config_path, transformer_shapes(folder)) if config.loras else ()
    upsampler = (
        inspect_upsampler(config.name, config.family, config.second_stage, folder, config_path)
        if config.second_stage
        else None
    )
    revision = (
        f"{LOCAL_REVISION}{fingerprint(folder, progress)[:32]}"
        if isinstance(source, Path)
        else folder.name
    )
    return ModelWeights(folder, revision, loras, upsampler, ggufs=ggufs)


def check_folder(
    folder: Path,
    pipeline: PipelineClass,
    *,
    has_weights: bool = True,
    without: Container[str] = (),
) -> None:
    """Refuse a folder that a pipeline class cannot load whole, from safetensors.

    Args:
        has_weights: False for a description, which lacks the weights alone.
        without: components whose weights are read from another file.

    Raises:
        ModelNotFoundError: a file is a git-lfs pointer.
        ModelFolderError: a part is missing, broken, unsafe, or of another class.
    """
    index = read_json(folder / "model_index.json")
    if index.get("_class_name") not in [*pipeline.folders]:  # it may be unhashable
        raise ModelFolderError(
            f"{folder}: model_index.json is for {index.get('_class_name')!r}, "
            f"not {' or '.join(map(repr, sorted(pipeline.folders)))}"
        )
    for component, allowed in pipeline.components.items():
        entry: Any = index.get(component)
        if component in pipeline.optional and entry in (None, [None, None]):
            continue
        if not (
            isinstance(entry, list)
            and len(entry) == 2
            and isinstance(entry[1], str)
            and entry[0] in LIBRARIES
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
        check_component(
            folder / component,
            has_weights=component in COMPONENTS_WITH_WEIGHTS,
            has_files=has_weights and component not in without,
        )


def transformer_shapes(folder: Path) -> TransformerShapes:
    """Return the shapes of the weights of each transformer in a folder."""
    return {
        component: {
            name: shape
            for shard in weight_files(folder / component)
            for name, shape in read_header(shard).shapes.items()
        }
        for component in transformer_names(folder)
    }


def transformer_names(folder: Path) -> list[str]:
    """Return the names of the transformers in a folder."""
    index = read_json(folder / "model_index.json")
    names = ("transformer", "transformer_2")
    return [name for name in names if index.get(name) not in (None, [None, None])]


def pipeline_files(folder: Path) -> list[Path]:
    """Return the files of an accepted folder that decide its fingerprint."""
    files = [folder / "model_index.json"]
    for component in sorted(ALL_COMPONENTS):
        files += [path for path in sorted((folder / component).glob("*")) if path.is_file()]
    return files


def fingerprint(folder: Path, progress: LoadProgress | None = None) -> str:
    """Return the SHA-256 of the names and content of a pipeline's files.

    Args:
        folder: an accepted folder.
        progress: receives the bytes to hash, and those that are hashed.
    """
    progress = progress or LoadProgress()
    digest = hashlib.sha256()
    files = pipeline_files(folder)
    sizes = [path.stat().st_size for path in files]
    progress.expect(sum(sizes))
    for path, size, content in zip(
        files, sizes, sha256_of_all(files, progress.advance), strict=True
    ):
        name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
        digest.update(name + f"\0{size}\0".encode())
        digest.update(content)
    return digest.hexdigest()
