"""Find the files of weights on this machine, and read JSON and digests of them.

Loads without torch. `model_folder` decides what a model's folder must hold, `lora_entries` what a
LoRA's file must hold, `safetensors_file` reads the headers.
"""

import json
import shlex
from pathlib import Path
from typing import Any

from pipelines.catalog.files.file_digests import sha256_of_all
from pipelines.catalog.files.safetensors_file import MAX_JSON_BYTES, refuse_pointer
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.regular_files import read_bounded

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
LOCAL_REVISION = "sha256:"  # begins the revision of files that do not come from a hub
# A pipeline's in its repository, which may hold others, such as the same weights in one file.
PIPELINE_FILES = (
    "model_index.json",
    *(
        f"{part}/*"
        for part in (
            "audio_vae", "connectors", "image_encoder", "image_processor", "scheduler",
            "text_encoder", "tokenizer", "transformer", "transformer_2", "vae", "vocoder",
        )
    ),
)  # fmt: skip


def hub_folder(
    name: str,
    source: str,
    revision: str | None,
    filename: str | None = None,
    patterns: tuple[str, ...] | None = None,
) -> Path:
    """Return the snapshot's folder in the local Hugging Face cache; its name is the commit.

    Args:
        name: name of the model or LoRA, for messages.
        source: id on the hub.
        revision: commit, branch or tag on the hub.
        filename: name of the one wanted file; None for those of `patterns`.
        patterns: names of the wanted files; None for the whole repository.

    Raises:
        ModelNotFoundError: the files are not on this machine; the message has the command that
            fetches them.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    missing = (
        f"{name}: {filename or source} is not in this machine's Hugging Face cache; "
        f"fetch it with: {download_command(source, revision, filename)}"
    )
    not_an_id = (
        f"{name}: {source!r} is neither a hub id (owner/name) nor a folder; the path of a "
        "folder begins with ./, / or ~"
    )
    if "/" not in source:
        raise ModelNotFoundError(not_an_id)
    wanted = [filename] if filename else list(patterns) if patterns else None
    try:
        folder = Path(
            snapshot_download(
                source, revision=revision, local_files_only=True, allow_patterns=wanted
            )
        )
    except HFValidationError as error:
        raise ModelNotFoundError(not_an_id) from error
    except LocalEntryNotFoundError as error:
        raise ModelNotFoundError(missing) from error
    if filename is not None and not (folder / filename).is_file():
        raise ModelNotFoundError(missing)
    return folder


def download_command(source: str, revision: str | None, filename: str | None = None) -> str:
    """Return the command that fetches a repository of the hub, or one file of it."""
    words = ["hf", "download", source, *([filename] if filename else [])]
    return shlex.join([*words, *(["--revision", revision] if revision else [])])


def has_no_weights(folder: Path) -> bool:
    """Return True for a model's folder without a file of weights of any kind."""
    kinds = ("*.safetensors", *PICKLES)
    return not any(path for kind in kinds for path in folder.glob(f"*/{kind}"))


def weight_files(folder: Path) -> list[Path]:
    """Return the .safetensors files that hold one component's weights.

    Raises:
        ModelFolderError: there are none, a shard is missing, or a shard is named by a path.
    """
    # One name before the suffix: model.fp16.safetensors is a variant, which is not loaded.
    indices = sorted(
        path for path in folder.glob("*.safetensors.index.json") if path.name.count(".") == 3
    )
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            pickled = [path.name for pattern in PICKLES for path in folder.glob(pattern)]
            remedy = f"; {pickled[0]} is a pickle, convert it to safetensors" if pickled else ""
            raise ModelFolderError(f"{folder} holds no .safetensors file{remedy}")
        return files
    weight_map: Any = read_json(indices[0]).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelFolderError(f"{indices[0]} has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFolderError(
                f"{indices[0]} names {name!r}, which is not a .safetensors file of its own folder"
            )
        if not (folder / name).exists():
            raise ModelFolderError(f"{folder}: the shard {name} is missing")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of bounded size.

    Raises:
        ModelNotFoundError: the file is a git-lfs pointer.
        ModelFolderError: the file is missing, too large, or not a JSON object.
    """
    try:
        data = read_bounded(path, MAX_JSON_BYTES)
        refuse_pointer(path, data)
        content: Any = json.loads(data)
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path} is missing") from error
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as a revision is written."""
    return f"{LOCAL_REVISION}{sha256_of_all([path])[0].hex()[:32]}"


def shown(names: list[str]) -> str:
    """Return the first three names, and the number of the others."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
