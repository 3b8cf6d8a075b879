"""Check that files of weights are whole and safe, and find the hub's files on this machine.

Reads names, sizes, JSON and safetensors headers; loads without torch. `model_folder` decides what a
model's folder must hold, `loras` what a LoRA's file must hold.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.regular_files import open_regular_file, read_bounded

# The size of a JSON file or a header. It holds 50,000 tensors; a transformer of 14 billion
# parameters has some 1,100. To parse 8 MB of `{},` takes 0.2 GB. The limit of the format itself,
# 100 MB, would let a folder of weights take 2.6 GB of the machine that plans.
MAX_JSON_BYTES = 8_000_000
MAX_TENSOR_BYTES = 2**63
LOCAL_REVISION = "sha256:"  # begins the revision of files that do not come from a hub


@dataclass(frozen=True)
class SafetensorsHeader:
    """The header of a safetensors file: each tensor's shape, and the metadata of its writer."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def hub_folder(name: str, source: str, revision: str | None, filename: str | None = None) -> Path:
    """Return the snapshot's folder in the local Hugging Face cache; its name is the commit.

    Args:
        name: name of the model or LoRA, for messages.
        source: id on the hub.
        revision: commit, branch or tag on the hub.
        filename: name of the one wanted file; None for the whole repository.

    Raises:
        ModelNotFoundError: the files are not on this machine; the message has the command that
            fetches them.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    words = [
        "hf download",
        source,
        *([filename] if filename else []),
        *(["--revision", revision] if revision else []),
    ]
    missing = (
        f"{name}: {filename or source} is not in this machine's Hugging Face cache; "
        f"fetch it with: {' '.join(words)}"
    )
    try:
        folder = Path(snapshot_download(source, revision=revision, local_files_only=True))
    except HFValidationError as error:
        raise ModelNotFoundError(
            f"{name}: {source!r} is neither a hub id (owner/name) nor a folder"
        ) from error
    except LocalEntryNotFoundError as error:
        raise ModelNotFoundError(missing) from error
    if filename is not None and not (folder / filename).is_file():
        raise ModelNotFoundError(missing)
    return folder


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
            pickled = [
                path.name
                for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt")
                for path in folder.glob(pattern)
            ]
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
        ModelFolderError: the file is missing, too large, or not a JSON object.
    """
    try:
        content: Any = json.loads(read_bounded(path, MAX_JSON_BYTES))
    except FileNotFoundError as error:
        raise ModelFolderError(f"{path} is missing") from error
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path} must hold a JSON object, not a {type(content).__name__}")
    return content


def read_header(path: Path) -> SafetensorsHeader:
    """Read a file's header, and prove by it and by the file's size that the file is whole.

    Raises:
        ModelFolderError: the file is truncated, padded, or not safetensors.
    """
    try:
        with open_regular_file(path) as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if header_bytes < 2:
                raise ModelFolderError(f"{path} is not a safetensors file")
            if header_bytes > MAX_JSON_BYTES:
                raise ModelFolderError(
                    f"{path} is not a safetensors file, or its header is larger than "
                    f"{MAX_JSON_BYTES:,} bytes"
                )
            header: Any = json.loads(file.read(header_bytes), object_pairs_hook=_without_repeats)
            found = os.fstat(file.fileno()).st_size
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        ends = [_whole(entry["data_offsets"][1]) for entry in header.values()]
        shapes = {name: tuple(map(_whole, entry["shape"])) for name, entry in header.items()}
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not a safetensors file: its header is broken") from error
    if not ends:
        raise ModelFolderError(f"{path} holds no tensors")
    expected = 8 + header_bytes + max(ends)
    if expected != found:
        raise ModelFolderError(
            f"{path} must have {expected:,} bytes by its header but has {found:,}: copy it again"
        )
    return SafetensorsHeader(shapes, metadata)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as a revision is written; it takes about 1 s for a gigabyte."""
    with open_regular_file(path) as file:
        return f"{LOCAL_REVISION}{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"


def _whole(value: object) -> int:
    """Return a size or an offset of a header; the header is broken if it is anything else."""
    if type(value) is not int or not 0 <= value < MAX_TENSOR_BYTES:
        raise ValueError("expected a whole number of at most 63 bits")
    return value


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Which of two equal keys counts is up to each reader, so refuse both."""
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return document
