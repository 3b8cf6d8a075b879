"""The description of a model: its configs and its tokenizer, with the revision of its weights.

A plan needs no more of a model: clip ids count tokens and revisions, and the sizes of groups follow
from the configs. So a machine with the weights writes a description, and a machine without them
plans from it, with equal ids. `worker_weights` proves on the worker that it belongs to the weights.
Loads without torch.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from pipelines.catalog.files.file_digests import sha256_of_all
from pipelines.catalog.files.sources import is_local, public_source, resolve_source
from pipelines.catalog.files.weight_files import hub_folder, read_json
from pipelines.catalog.folder_facts import check_facts
from pipelines.catalog.keys.lora_config import LoraConfig
from pipelines.catalog.keys.pipeline_classes import (
    ALL_COMPONENTS,
    COMPONENTS_WITH_WEIGHTS,
    Family,
    PipelineClass,
)
from pipelines.catalog.keys.second_stage import SecondStage
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, check_folder
from pipelines.catalog.model_loras import LoraWeights
from pipelines.catalog.tokenizer import MAX_VOCABULARY_BYTES
from pipelines.catalog.upsampler_files import UpsamplerWeights
from pipelines.errors import ModelFolderError, ModelNotFoundError

SCHEMA_VERSION = 1
UPSAMPLER = "latent_upsampler"
SUFFIX = ".described"  # a model's weights may lie beside its YAML under its name
FILE_NAME = "description.json"
CACHE_NAME = "nagfarm-descriptions"
MAX_FILES = 64
MAX_BYTES = 64_000_000  # all files together
DESCRIBED = ("model_index.json", "tokenizer/*", "scheduler/*", "*/config.json")  # as on the hub
_COMMIT, _SHA256 = "[0-9a-f]{40}", "sha256:[0-9a-f]{32}"
_REVISION = re.compile(f"{_COMMIT}|{_SHA256}")
_LORA_REVISION = re.compile(rf"({_COMMIT}/)?{_SHA256}(\+{_SHA256})?")
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class DescribedLora:
    """A LoRA: its name in the YAML, its source without a path, and its revision."""

    name: str
    source: str
    revision: str


@dataclass(frozen=True)
class Description:
    """The content of `description.json`.

    Args:
        source: source of the weights, without a path of a machine.
        revision: commit of the hub, or fingerprint of the folder.
        loras: the LoRAs in the YAML's order.
        upsampler: latent upsampler of a second stage, under the name `latent_upsampler`.
        num_weight_bytes: size of the weights, for people; 0 if it is not known.
        files: SHA-256 of each file that lies beside it, by its path in the folder.
    """

    name: str
    family: Family
    source: str
    revision: str
    loras: tuple[DescribedLora, ...]
    num_weight_bytes: int
    files: Mapping[str, str]
    upsampler: DescribedLora | None = None

    @property
    def folder_name(self) -> str:
        return f"{self.name}{SUFFIX}"


@dataclass(frozen=True)
class Described:
    """A description that a plan was made from.

    Args:
        config_path: path of the model's YAML, to which the source of its weights may be relative.
    """

    description: Description
    config_path: Path


def describe(config: ModelConfig, config_path: Path, weights: ModelWeights) -> Description:
    """Return the description of a model whose weights were inspected on this machine.

    Raises:
        ModelFolderError: the configs and the tokenizer are too large for a description, or a
            transformer is in a GGUF file.
    """
    folder = weights.folder
    if weights.ggufs:
        raise ModelFolderError(
            f"{config.name}: a model with a GGUF file cannot be described; plan where its file is"
        )
    return Description(
        name=config.name,
        family=config.family,
        source=public_source(config.source, config_path, folder),
        revision=weights.revision,
        loras=tuple(
            DescribedLora(
                lora.name,
                public_source(lora.source, config_path, found.path.parent),
                found.revision,
            )
            for lora, found in zip(config.loras, weights.loras, strict=True)
        ),
        num_weight_bytes=sum(path.stat().st_size for path in folder.glob("*/*.safetensors")),
        files=described_files(folder, config.pipeline_class),
        upsampler=_describe_upsampler(config, config_path, weights),
    )


def _describe_upsampler(
    config: ModelConfig, config_path: Path, weights: ModelWeights
) -> DescribedLora | None:
    stage, found = config.second_stage, weights.upsampler
    if stage is None or found is None:
        return None
    source = public_source(stage.source, config_path, found.folder)
    return DescribedLora(UPSAMPLER, source, found.revision)


def describe_download(config: ModelConfig, config_path: Path) -> ModelWeights | None:
    """Return the weights of a model of the hub whose other files are in this machine's cache.

    None for any other model: the revision of a folder or a LoRA is a digest of its weights.

    Raises:
        ModelNotFoundError: nothing of the model is in the cache.
        ModelFolderError: a file is missing, broken or unsafe.
    """
    source = resolve_source(config.source, config_path)
    if isinstance(source, Path) or config.source.startswith("package:") or config.loras:
        return None
    if config.second_stage is not None:
        return None
    folder = hub_folder(config.name, source, config.revision, patterns=DESCRIBED)
    check_folder(folder, config.pipeline_class, has_weights=False)
    weights = ModelWeights(folder, folder.name)
    description = describe(config, config_path, weights)
    return replace(weights, described=Described(description, config_path.absolute()))


def described_files(folder: Path, pipeline: PipelineClass) -> dict[str, str]:
    """Return the SHA-256 of each file of a model's folder that its description holds.

    Raises:
        ModelFolderError: there are too many, or they are too large or cannot be read.
    """
    paths = list(_described_paths(folder, pipeline))
    try:
        sizes = [path.stat().st_size for path in paths]
        if len(paths) > MAX_FILES or sum(sizes) > MAX_BYTES or max(sizes) > MAX_VOCABULARY_BYTES:
            raise ModelFolderError(
                f"{folder}: its configs and tokenizer are {len(paths)} files of {sum(sizes):,} "
                f"bytes; a description holds at most {MAX_FILES} of {MAX_BYTES:,} bytes, each of "
                f"at most {MAX_VOCABULARY_BYTES:,}"
            )
        digests = sha256_of_all(paths)
    except OSError as error:
        raise ModelFolderError(f"{error.filename} cannot be read: {error.strerror}") from error
    names = (path.relative_to(folder).as_posix() for path in paths)
    return {name: digest.hex() for name, digest in zip(names, digests, strict=True)}


def _described_paths(folder: Path, pipeline: PipelineClass) -> Iterator[Path]:
    yield folder / "model_index.json"
    for component in sorted(pipeline.components):
        part = folder / component
        if not part.is_dir():
            continue
        if component in COMPONENTS_WITH_WEIGHTS:
            yield part / "config.json"
        else:
            yield from sorted(path for path in part.iterdir() if path.is_file())


def read_description(folder: Path, config: ModelConfig, config_path: Path) -> ModelWeights:
    """Return the weights that a folder describes, for a plan.

    Raises:
        ModelFolderError: the description is broken, unsafe, or of another model than the YAML's.
    """
    path = folder / FILE_NAME
    try:
        description = parse_description(read_json(path))
        _check_model(description, config, config_path)
        if described_files(folder, config.pipeline_class) != description.files:
            raise ModelFolderError("the files beside it are not those that it names")
    except ModelFolderError as error:
        raise ModelFolderError(
            f"{path}: {error}; describe the model again: nagfarm models --describe {config.name}"
        ) from error
    if config.gguf_files:
        raise ModelNotFoundError(
            f"{config.name}: a model with a GGUF file cannot be planned by a description; plan "
            "where its file is"
        )
    check_folder(folder, config.pipeline_class, has_weights=False)
    check_facts(config, folder)
    return ModelWeights(
        folder,
        description.revision,
        tuple(LoraWeights(Path(lora.name), lora.revision) for lora in description.loras),
        UpsamplerWeights(Path(UPSAMPLER), description.upsampler.revision)
        if description.upsampler
        else None,
        Described(description, config_path.absolute()),
    )


def parse_description(content: Mapping[str, Any]) -> Description:
    """Return the description that a JSON document holds.

    Raises:
        ModelFolderError: a value is missing or wrong.
    """
    try:
        if content["schema_version"] != SCHEMA_VERSION:
            raise ModelFolderError(f"this version reads schema_version {SCHEMA_VERSION}")
        upsampler = content.get("upsampler")  # a later field
        found = Description(
            **{name: content[name] for name in ("name", "family", "source", "revision")},
            loras=tuple(DescribedLora(**lora) for lora in content["loras"]),
            num_weight_bytes=content["num_weight_bytes"],
            files=dict(content["files"]),
            upsampler=DescribedLora(**upsampler) if upsampler else None,
        )
        is_whole = (
            Path(found.name).name == found.name
            and found.name.isprintable()
            and found.family in frozenset(get_args(Family))
            and _REVISION.fullmatch(found.revision) is not None
            and all(_LORA_REVISION.fullmatch(lora.revision) for lora in found.loras)
            and (
                found.upsampler is None or _REVISION.fullmatch(found.upsampler.revision) is not None
            )
            and all(_DIGEST.fullmatch(digest) for digest in found.files.values())
            and len(found.files) <= MAX_FILES
            and all(map(_is_described, found.files))
            and all(
                type(one.source) is str
                for one in (found, *found.loras, *([found.upsampler] if found.upsampler else []))
            )
            and type(found.num_weight_bytes) is int
        )
    except (LookupError, TypeError, ValueError) as error:
        raise ModelFolderError("it is not a description") from error
    if not is_whole:
        raise ModelFolderError("a value in it is not one of a description")
    return found


def _is_described(name: str) -> bool:
    """Return True for the path of a file that a description may hold."""
    component, _, file = name.rpartition("/")
    if not component:
        return file == "model_index.json"
    return component in ALL_COMPONENTS and file not in ("", ".", "..") and file.isprintable()


def _check_model(description: Description, config: ModelConfig, config_path: Path) -> None:
    """Refuse a description that was made with another YAML."""
    if (description.name, description.family) != (config.name, config.family):
        raise ModelFolderError(f"it is of {description.name}, a {description.family}")
    if [lora.name for lora in description.loras] != [lora.name for lora in config.loras]:
        raise ModelFolderError("it has other LoRAs than the model's YAML")
    stage, upsampler = config.second_stage, description.upsampler
    if (stage is None) != (upsampler is None):
        raise ModelFolderError("it has another latent upsampler than the model's YAML")
    pairs: list[tuple[ModelConfig | LoraConfig | SecondStage, Description | DescribedLora]]
    pairs = [(config, description), *zip(config.loras, description.loras, strict=True)]
    if stage is not None and upsampler is not None:
        pairs.append((stage, upsampler))
    for wanted, found in pairs:
        if not _is_of(wanted, config_path, found):
            commit = f", revision {wanted.revision}" if wanted.revision else ""
            raise ModelFolderError(
                f"for {found.name} it has {found.source}, revision {found.revision}, and the "
                f"model's YAML names {wanted.source}{commit}"
            )


def _is_of(
    wanted: ModelConfig | LoraConfig | SecondStage,
    config_path: Path,
    found: Description | DescribedLora,
) -> bool:
    """Return True if weights may be those that a YAML names; its branch may have moved on."""
    if is_local(wanted.source, config_path):
        return found.source.startswith("folder:")
    names_commit = re.fullmatch(_COMMIT, wanted.revision or "")
    has_commit = not names_commit or found.revision.startswith(names_commit[0])
    return found.source == wanted.source and has_commit
