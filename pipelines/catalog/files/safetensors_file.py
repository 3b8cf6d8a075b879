"""Read a safetensors file without torch: its header, and the few values that decide something.

The header and the file's size together prove that the file is whole.
"""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.regular_files import open_regular_file

# The size of a JSON file or a header. It holds 50,000 tensors; a transformer of 14 billion
# parameters has some 1,100. To parse 8 MB of `{},` takes 0.2 GB. The limit of the format itself,
# 100 MB, would let a folder of weights take 2.6 GB of the machine that plans.
MAX_JSON_BYTES = 8_000_000
MAX_TENSOR_BYTES = 2**63
MAX_DIMENSIONS = 8
CHUNK_BYTES = 1_000_000
LFS_POINTER = b"version https://git-lfs.github.com/spec/"  # begins what git-lfs leaves for a file
FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_NUMBERS = {"F64": "<d", "F32": "<f", "F16": "<e", "I64": "<q", "I32": "<i"}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's place in a file: bytes `start` to `stop`, counted from the file's first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class SafetensorsHeader:
    """The header of a safetensors file: its tensors, and the metadata of its writer."""

    path: Path
    entries: Mapping[str, TensorEntry]
    metadata: Mapping[str, str]

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Return each tensor's shape."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def is_zero(self, name: str) -> bool:
        """Return True if a tensor holds zeros only; it reads up to the first other value."""
        entry = self.entries[name]
        item_bytes = FLOAT_BYTES.get(entry.dtype, 1)
        with open_regular_file(self.path) as file:
            file.seek(entry.start)
            for start in range(entry.start, entry.stop, CHUNK_BYTES):
                chunk = file.read(min(CHUNK_BYTES, entry.stop - start))
                signs = chunk[item_bytes - 1 :: item_bytes].count(0x80)  # -0.0
                if chunk.count(0) + signs != len(chunk):
                    return False
        return True

    def number(self, name: str) -> float | None:
        """Return the value of a tensor that holds one number, or None for any other."""
        entry = self.entries[name]
        if prod(entry.shape) != 1:
            return None
        with open_regular_file(self.path) as file:
            file.seek(entry.start)
            content = file.read(min(8, entry.stop - entry.start))
        if entry.dtype == "BF16":  # the upper half of a float32
            return float(struct.unpack("<f", b"\0\0" + content)[0])
        if entry.dtype not in _NUMBERS:
            return None
        return float(struct.unpack(_NUMBERS[entry.dtype], content)[0])


def refuse_pointer(path: Path, content: bytes) -> None:
    """Refuse what `git clone` leaves in the place of a large file where git-lfs is not installed.

    Args:
        path: path of the file.
        content: its first bytes, at least as many as `LFS_POINTER` has.

    Raises:
        ModelNotFoundError: the file is such a pointer.
    """
    if content.startswith(LFS_POINTER):
        raise ModelNotFoundError(
            f"{path} is a git-lfs pointer, not the file itself: run `git lfs install` and then "
            f"`git lfs pull` in that repository, or fetch it with hf download"
        )


def read_header(path: Path) -> SafetensorsHeader:
    """Read a file's header, and prove by it and by the file's size that the file is whole.

    Raises:
        ModelNotFoundError: the file is a git-lfs pointer.
        ModelFolderError: the file is truncated, padded, or not safetensors.
    """
    try:
        with open_regular_file(path) as file:
            refuse_pointer(path, file.peek(len(LFS_POINTER)))
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
        entries = {name: _entry(entry, 8 + header_bytes) for name, entry in header.items()}
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelFolderError(f"{path} is not a safetensors file: its header is broken") from error
    if not entries:
        raise ModelFolderError(f"{path} holds no tensors")
    expected = max(entry.stop for entry in entries.values())
    if expected != found:
        raise ModelFolderError(
            f"{path} must have {expected:,} bytes by its header but has {found:,}: copy it again"
        )
    return SafetensorsHeader(path, entries, metadata)


def _entry(entry: Any, data_start: int) -> TensorEntry:
    """Return a tensor's entry; a float's size must agree with its shape."""
    shape = tuple(map(_whole, entry["shape"]))
    start, stop = map(_whole, entry["data_offsets"])
    if len(shape) > MAX_DIMENSIONS:
        raise ValueError("a tensor has too many dimensions")
    if (item_bytes := FLOAT_BYTES.get(str(entry["dtype"]))) is not None and (
        stop - start != prod(shape) * item_bytes
    ):
        raise ValueError("the size of a tensor contradicts its shape")
    return TensorEntry(str(entry["dtype"]), shape, data_start + start, data_start + stop)


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
