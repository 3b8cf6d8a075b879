"""Whether files of weights are whole and safe, and where the hub's lie on this machine. Loads without torch.

Reads names, sizes, JSON and safetensors headers. What a model's folder must hold is decided in `loading`, what a LoRA's
file must hold in `loras`.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.errors import ModelFolderError, ModelNotFoundError

MAX_JSON_BYTES = 64_000_000  # a large vocabulary's tokenizer.json is 17 MB
MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit
LOCAL_REVISION = "sha256:"  # what the revision of files begins with that come from no hub


@dataclass(frozen=True)
class SafetensorsHeader:
    """What a safetensors file says of its content: the shape of each tensor, and whatever its writer added."""

    shapes: Mapping[str, tuple[int, ...]]
    metadata: Mapping[str, str]


def hub_folder(name: str, source: str, revision: str | None, filename: str | None = None) -> Path:
    """The snapshot's folder in the local Hugging Face cache; its name is the commit.

    Args:
        name: what it is for, as messages call it.
        source: the hub's id.
        revision: the hub's commit, branch or tag.
        filename: the one file that is wanted; None wants the repository.

    Raises:
        ModelNotFoundError: not on this machine, with the command that fetches it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    words = [
        "hf download",
        source,
        *([filename] if filename else []),
        *(["--revision", revision] if revision else []),
    ]
    missing = f"{name}: {filename or source} is not in this machine's Hugging Face cache; fetch it with: {' '.join(words)}"
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
    """The .safetensors files that hold one component's weights.

    Raises:
        ModelFolderError: there are none, or a shard is missing or named by a path.
    """
    # one name before the suffix: a second, as in model.fp16.safetensors, is a variant's, which is not loaded
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
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder}: the shard {name} is missing")
    return [folder / name for name in names]


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object of bounded size.

    Raises:
        ModelFolderError: missing, too large, or not a JSON object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ModelFolderError(f"{path} is larger than {MAX_JSON_BYTES:,} bytes")
        content: Any = json.loads(path.read_bytes())
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
    """Reads a file's header, and proves by it and by the file's size that the file is whole.

    Raises:
        ModelFolderError: truncated, padded, or not safetensors.
    """
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            header_bytes = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if not 2 <= header_bytes <= MAX_HEADER_BYTES:
                raise ModelFolderError(f"{path} is not a safetensors file")
            header: Any = json.loads(file.read(header_bytes))
        metadata = {str(key): str(value) for key, value in header.pop("__metadata__", {}).items()}
        ends = [entry["data_offsets"][1] for entry in header.values()]
        shapes = {
            str(name): tuple(int(size) for size in entry["shape"]) for name, entry in header.items()
        }
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not a safetensors file: its header is broken") from error
    if not ends or not all(isinstance(end, int) for end in ends):
        raise ModelFolderError(f"{path} holds no tensors")
    expected, found = 8 + header_bytes + max(ends), path.stat().st_size
    if expected != found:
        raise ModelFolderError(
            f"{path} must have {expected:,} bytes by its header but has {found:,}: copy it again"
        )
    return SafetensorsHeader(shapes, metadata)


def file_digest(path: Path) -> str:
    """SHA-256 over one file's content as a revision is written: about a second a gigabyte."""
    with path.open("rb") as file:
        return f"{LOCAL_REVISION}{hashlib.file_digest(file, 'sha256').hexdigest()[:32]}"
