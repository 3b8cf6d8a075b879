"""The weights on the machine that loads them: found, verified, and read ahead.

A plan may have been made on another machine, from the same weights or from their description.
Loads without torch.
"""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pipelines.catalog.description import Described, described_files
from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.files.weight_files import (
    LOCAL_REVISION,
    PIPELINE_FILES,
    file_digest,
    hub_folder,
    shown,
    weight_files,
)
from pipelines.catalog.keys.pipeline_classes import COMPONENTS_WITH_WEIGHTS
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import (
    ModelWeights,
    check_folder,
    fingerprint,
    transformer_shapes,
)
from pipelines.catalog.model_loras import LoraWeights, find_lora, lora_title, verify_loras
from pipelines.catalog.upsampler_files import find_upsampler, verify_upsampler
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.load_progress import LoadProgress
from pipelines.regular_files import open_regular_file


def verify_weights(
    config: ModelConfig, weights: ModelWeights, progress: LoadProgress | None = None
) -> ModelWeights:
    """Prove, on the machine that loads them, that the weights are those of the plan.

    Args:
        config: the model.
        weights: the folder and LoRAs that were inspected, or described.
        progress: receives the bytes to hash, and those that are hashed.

    Returns:
        The folder and the LoRAs on this machine.

    Raises:
        ModelNotFoundError: the weights do not exist on this machine.
        ModelFolderError: the folder is broken here, or holds other weights, or the description
            that the plan was made from is not that of these weights.
    """
    described = weights.described
    if described is not None:
        weights = _find(config, weights, described)
    if not weights.folder.is_dir():
        raise ModelNotFoundError(
            f"{config.name}: the model folder {weights.folder} does not exist on this machine"
        )
    check_folder(weights.folder, config.pipeline_class, without=config.gguf_files)
    for gguf in weights.ggufs:
        if not gguf.path.is_file() or file_digest(gguf.path) != gguf.revision:
            raise ModelFolderError(
                f"{config.name}: {gguf.path} is missing on this machine, or it is not the file "
                "that the plan was made with"
            )
    is_local = weights.revision.startswith(LOCAL_REVISION)
    found = (
        f"{LOCAL_REVISION}{fingerprint(weights.folder, progress)[:32]}"
        if is_local
        else weights.folder.name
    )
    if found != weights.revision:
        raise ModelFolderError(
            f"{config.name}: {weights.folder} holds revision {found} here, not {weights.revision}"
            + (f"; {_remedy(config)}" if described else "")
        )
    if weights.upsampler is not None:
        verify_upsampler(config.name, config.family, weights.upsampler, weights.folder)
    if config.loras:
        verify_loras(config, weights.loras, transformer_shapes(weights.folder))
    if described is not None:
        _prove(config, weights.folder, described)
    return weights


def read_ahead(weights: ModelWeights) -> None:
    """Ask the system to read accepted weights from the disk now, since they are loaded soon."""
    folders = [weights.folder / name for name in COMPONENTS_WITH_WEIGHTS]
    folders += [weights.upsampler.folder] if weights.upsampler else []
    replaced = {weights.folder / gguf.component for gguf in weights.ggufs}
    files = [
        path
        for folder in folders
        if folder.is_dir() and folder not in replaced
        for path in weight_files(folder)
    ]
    others = (*weights.loras, *weights.ggufs)
    for path in [*files, *(other.path for other in others)]:
        with suppress(OSError), open_regular_file(path) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _find(config: ModelConfig, weights: ModelWeights, described: Described) -> ModelWeights:
    """Return the described weights where this machine has them.

    Files of the hub are those of the described commit, whatever the YAML's branch is here.
    """
    path = described.config_path
    source = resolve_source(config.source, path)
    if isinstance(source, Path):
        folder = source
    else:
        folder = hub_folder(config.name, source, weights.revision, patterns=PIPELINE_FILES)
    loras: list[LoraWeights] = []
    for lora, found in zip(config.loras, weights.loras, strict=True):
        commit, is_of_hub, _ = found.revision.rpartition("/")
        wanted = replace(lora, revision=commit) if is_of_hub else lora
        loras.append(replace(found, path=find_lora(lora_title(config, lora), wanted, path)[0]))
    upsampler = weights.upsampler
    if config.second_stage is not None and upsampler is not None:
        is_local_folder = upsampler.revision.startswith(LOCAL_REVISION)
        commit = config.second_stage.revision if is_local_folder else upsampler.revision
        place, _ = find_upsampler(config.name, config.second_stage, commit, path)
        upsampler = replace(upsampler, folder=place)
    return replace(weights, folder=folder, loras=tuple(loras), upsampler=upsampler, described=None)


def _prove(config: ModelConfig, folder: Path, described: Described) -> None:
    """Refuse a description whose configs or tokenizer are not those of the weights."""
    here, there = described_files(folder, config.pipeline_class), described.description.files
    if other := sorted(name for name in {*here, *there} if here.get(name) != there.get(name)):
        raise ModelFolderError(
            f"{config.name}: the plan was made from a description that differs from {folder} in "
            f"{shown(other)}; {_remedy(config)}"
        )


def _remedy(config: ModelConfig) -> str:
    return (
        f"describe the model again where its weights are (nagfarm models --describe "
        f"{config.name}), or plan with --remote"
    )
