"""GGUF files: a transformer in few bits, and the header that proves it before a library reads it.

Loads without torch. A header is read by this module within limits; the values of its keys are
skipped. Every tensor must be of a type that diffusers dequantizes, and lie inside of the file.
"""

import struct
from dataclasses import dataclass, field
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any

from pipelines.catalog.files.safetensors_file import LFS_POINTER, refuse_pointer
from pipelines.catalog.files.weight_files import file_digest
from pipelines.errors import ModelFolderError, ModelNotFoundError
from pipelines.regular_files import open_regular_file

MAX_HEADER_BYTES = 2**24
MAX_TENSORS = MAX_KEYS = 20_000
MAX_DIMENSIONS = 8
MAX_NAME_BYTES = 256  # the format allows 64
# Number of the type: weights and bytes of a block. F32, F16 and BF16 are not quantized.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 30: (1, 2),
    2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210),
}  # fmt: skip
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4


@dataclass(frozen=True)
class GgufWeights:
    """A file of one transformer, which is fit to load.

    Args:
        component: name of the transformer in the pipeline.
        revision: digest of the file.
        sizes: bytes of each tensor, by its name.
    """

    component: str
    path: Path
    revision: str
    sizes: dict[str, int] = field(hash=False)


def inspect_gguf(component: str, file: str, config_path: Path) -> GgufWeights:
    """Check a file that a model's YAML names; a relative path is relative to the YAML.

    Raises:
        ModelNotFoundError: the file does not exist on this machine, or is a git-lfs pointer.
        ModelFolderError: it is broken or unsafe.
    """
    try:
        path = (config_path.parent / Path(file).expanduser()).resolve()
        is_there = path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # such as a loop of links, or NUL
        raise ModelNotFoundError(f"{config_path}: {file[:MAX_NAME_BYTES]!r}: {error}") from error
    if not is_there:
        raise ModelNotFoundError(f"{config_path}: the file {path} does not exist here")
    sizes = read_sizes(path)  # it refuses what cannot be hashed
    return GgufWeights(component, path, file_digest(path), sizes)


def read_sizes(path: Path) -> dict[str, int]:
    """Read a header, and return the bytes of each tensor, by its name.

    Raises:
        ModelNotFoundError: the file is a git-lfs pointer.
        ModelFolderError: the file is not one of GGUF, is broken, or holds a type without support.
    """
    try:
        with open_regular_file(path) as file:
            refuse_pointer(path, file.peek(len(LFS_POINTER)))
            return _Header(file).sizes()
    except OSError as error:
        raise ModelFolderError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, struct.error) as error:
        raise ModelFolderError(f"{path} cannot be loaded as a GGUF file: {error}") from error


class _Header:
    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._alignment = 32
        self._size = file.seek(0, 2)
        file.seek(0)

    def sizes(self) -> dict[str, int]:
        magic, version, num_tensors, num_keys = self._unpack("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError("it must begin with GGUF and the version 2 or 3")
        if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
            raise ValueError(f"it announces {num_tensors} tensors and {num_keys} keys")
        for _ in range(num_keys):
            self._skip_key()
        places: dict[str, tuple[int, int]] = {}
        for _ in range(num_tensors):
            name, place = self._tensor()
            if name in places:
                raise ValueError(f"two tensors are called {name!r}")
            places[name] = place
        start = -(-self._file.tell() // self._alignment) * self._alignment
        for name, (offset, size) in places.items():
            if offset % self._alignment or start + offset + size > self._size:
                raise ValueError(f"{name!r} does not lie inside of the file; fetch it again")
        return {name: size for name, (_, size) in places.items()}

    def _tensor(self) -> tuple[str, tuple[int, int]]:
        encoded = self._string()
        if len(encoded) > MAX_NAME_BYTES:
            raise ValueError(f"the name of a tensor has {len(encoded)} bytes")
        name = encoded.decode()
        (num_dimensions,) = self._unpack("<I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"{name!r} has {num_dimensions} dimensions")
        *shape, kind, offset = self._unpack(f"<{num_dimensions}QIQ")
        if kind not in BLOCKS:
            raise ValueError(f"{name!r} has the type {kind}, which diffusers does not dequantize")
        weights, num_bytes = BLOCKS[kind]
        if shape[0] % weights:
            raise ValueError(f"{name!r} has rows of {shape[0]}, not a multiple of {weights}")
        return name, (offset, prod(shape) // weights * num_bytes)

    def _skip_key(self) -> None:
        name = self._string()
        (kind,) = self._unpack("<I")
        if name == b"general.alignment" and kind == _UINT32:
            (self._alignment,) = self._unpack("<I")
            if not 1 <= self._alignment <= 2**16:
                raise ValueError(f"its alignment is {self._alignment}")
        else:
            self._skip_value(kind)

    def _skip_value(self, kind: int) -> None:
        if kind == _STRING:
            self._string()
        elif kind == _ARRAY:
            of_kind, count = self._unpack("<IQ")
            if of_kind == _STRING:
                for _ in range(min(count, MAX_HEADER_BYTES)):
                    self._string()
            else:
                self._read(_SIZES.get(of_kind, MAX_HEADER_BYTES) * count)
        else:
            self._read(_SIZES.get(kind, MAX_HEADER_BYTES))

    def _string(self) -> bytes:
        (length,) = self._unpack("<Q")
        return self._read(length)

    def _unpack(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._read(struct.calcsize(form)))

    def _read(self, num_bytes: int) -> bytes:
        if self._file.tell() + num_bytes > min(self._size, MAX_HEADER_BYTES):
            raise ValueError("its header does not end; fetch it again")
        return self._file.read(num_bytes)
