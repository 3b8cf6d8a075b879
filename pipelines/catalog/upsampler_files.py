"""The folder of a latent upsampler: found, checked, and known by its revision. Without torch."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.catalog.files.component_files import check_component
from pipelines.catalog.files.file_digests import sha256_of_all
from pipelines.catalog.files.sources import resolve_source
from pipelines.catalog.files.weight_files import (
    LOCAL_REVISION,
    download_command,
    hub_folder,
    read_json,
    weight_files,
)
from pipelines.catalog.keys.second_stage import SCALE, SecondStage
from pipelines.errors import ModelFolderError, ModelNotFoundError

UPSAMPLERS = {"ltx": "LTXLatentUpsamplerModel", "ltx2": "LTX2LatentUpsamplerModel"}
_CHANNELS = 128  # in the latents, by default in diffusers' classes


@dataclass(frozen=True)
class UpsamplerWeights:
    """The folder of a latent upsampler that is fit to load, and its revision."""

    folder: Path
    revision: str


def hub_patterns(stage: SecondStage) -> tuple[str, ...]:
    """Return the names of the upsampler's files in its repository on the hub."""
    return (f"{stage.subfolder}/*",) if stage.subfolder else ("config.json", "*.safetensors")


def inspect_upsampler(
    model: str, family: str, stage: SecondStage, model_folder: Path, config_path: Path
) -> UpsamplerWeights:
    """Check the latent upsampler that a model's YAML names.

    Args:
        model: name of the model.
        family: its family, with an upsampler of its own.
        stage: `second_stage` of its YAML.
        model_folder: accepted folder of the model, whose latents are to be upsampled.
        config_path: path of the YAML; relative folders are relative to it.

    Returns:
        The folder and its revision: the hub's commit, or the fingerprint of a local folder.

    Raises:
        ModelNotFoundError: it is not on this machine; the message has the command that fetches it.
        ModelFolderError: it is broken, unsafe, or made for other latents or another scale.
    """
    folder, commit = find_upsampler(model, stage, stage.revision, config_path)
    check_upsampler(folder, family, model_folder)
    return UpsamplerWeights(folder, commit or _fingerprint(folder))


def verify_upsampler(model: str, family: str, found: UpsamplerWeights, model_folder: Path) -> None:
    """Prove, on the machine that loads it, that an upsampler is the one that was inspected.

    Raises:
        ModelNotFoundError: its folder does not exist on this machine.
        ModelFolderError: it is broken here, or holds other weights.
    """
    if not found.folder.is_dir():
        raise ModelNotFoundError(
            f"{model}: the latent upsampler {found.folder} does not exist on this machine"
        )
    check_upsampler(found.folder, family, model_folder)
    if found.revision.startswith(LOCAL_REVISION):
        here = _fingerprint(found.folder)
    else:  # the name of a snapshot's folder is its commit
        here = found.revision if found.revision in found.folder.parts else "another commit"
    if here != found.revision:
        raise ModelFolderError(f"{model}: {found.folder} holds {here} here, not {found.revision}")


def find_upsampler(
    model: str, stage: SecondStage, revision: str | None, config_path: Path
) -> tuple[Path, str]:
    """Return the folder of an upsampler, and its commit; empty for a folder of the machine."""
    source, title = resolve_source(stage.source, config_path), f"{model}: latent upsampler"
    if isinstance(source, str):
        snapshot = hub_folder(title, source, revision, patterns=hub_patterns(stage))
        folder, commit = snapshot / stage.subfolder, snapshot.name
        if not (folder / "config.json").exists():
            raise ModelNotFoundError(
                f"{title}: {folder} has no config.json; fetch it with: "
                f"{download_command(source, revision)}, or correct second_stage.subfolder"
            )
        return folder, commit
    folder = source / stage.subfolder
    if not folder.is_dir():
        raise ModelNotFoundError(
            f"{title}: the folder {folder} does not exist; correct second_stage.source or subfolder"
        )
    return folder, ""


def check_upsampler(folder: Path, family: str, model_folder: Path) -> None:
    """Refuse a folder unless it doubles the height and the width of a model's latents.

    Raises:
        ModelNotFoundError: a file is a git-lfs pointer.
        ModelFolderError: it is broken, unsafe, or another kind of upsampler.
    """
    check_component(folder, has_weights=True)
    path, wanted = folder / "config.json", UPSAMPLERS[family]
    config = read_json(path)
    if config.get("_class_name") != wanted:
        raise ModelFolderError(f"{path} is of {config.get('_class_name')!r}, not {wanted!r}")
    scale: Any = config.get("rational_spatial_scale", SCALE)
    is_rational = family == "ltx2" and config.get("use_rational_resampler", True)
    if (
        config.get("temporal_upsample", False)
        or not config.get("spatial_upsample", True)
        or (is_rational and scale != SCALE)
    ):
        raise ModelFolderError(
            f"{path} is of an upsampler that does not double height and width alone, which "
            "second_stage needs: name another in second_stage.source"
        )
    latents = read_json(model_folder / "transformer" / "config.json").get("in_channels", _CHANNELS)
    if config.get("in_channels", _CHANNELS) != latents:
        raise ModelFolderError(
            f"{path} is for latents of {config.get('in_channels', _CHANNELS)} channels, and those "
            f"of {model_folder} have {latents}"
        )


def _fingerprint(folder: Path) -> str:
    files = [folder / "config.json", *weight_files(folder)]
    digest = hashlib.sha256()
    for path, content in zip(files, sha256_of_all(files), strict=True):
        digest.update(f"{path.name}\0".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return f"{LOCAL_REVISION}{digest.hexdigest()[:32]}"
