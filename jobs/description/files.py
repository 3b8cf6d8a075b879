"""Descriptions of models as files: written into a folder, and packed for the way from a cluster.

A packed description is compressed JSON. It is unpacked within limits, and no path in it leads out
of its folder. `pipelines.catalog.description` decides what a description holds. Loads without
torch.
"""

import base64
import json
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.errors import RefusedError
from pipelines.catalog.description import (
    CACHE_NAME,
    FILE_NAME,
    MAX_BYTES,
    SCHEMA_VERSION,
    Description,
    parse_description,
)
from pipelines.catalog.tokenizer import MAX_VOCABULARY_BYTES
from pipelines.errors import ModelFolderError
from pipelines.private_folders import open_private_folder, user_folder
from pipelines.regular_files import read_bounded

MAX_UNPACKED_BYTES = 2 * MAX_BYTES  # base64 makes four characters of three bytes
UNREADABLE = (zlib.error, ValueError, LookupError, TypeError, AttributeError, RecursionError)
LINE_PREFIX = "nagfarm-description "
LINE_CHARACTERS = 3000  # a line of output shows at most 4,000


def save_description(description: Description, contents: Mapping[str, bytes], place: Path) -> Path:
    """Write a description into a folder of descriptions, and return its own folder there.

    An older one of the model is replaced as a whole. An equal one stays, so that runs that start
    together, and ask a cluster for the same, do not take it from each other.

    Args:
        contents: the files, by their paths.

    Raises:
        RefusedError: it cannot be written.
    """
    folder = place / description.folder_name
    partial = place / f".nagfarm-{secrets.token_hex(8)}.partial"  # no link can wait there
    document = {"schema_version": SCHEMA_VERSION, **asdict(description)}
    files = {**contents, FILE_NAME: f"{json.dumps(document, indent=1)}\n".encode()}
    try:
        if _holds(folder, files):
            return folder
        place.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        for name, content in files.items():
            (partial / name).parent.mkdir(exist_ok=True)
            (partial / name).write_bytes(content)
        if (folder / FILE_NAME).is_file():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if _holds(folder, files):  # another process was faster
            return folder
        raise RefusedError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def _holds(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Return True if a folder has these files, and no others."""
    try:
        found = {
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.is_symlink() or not path.is_dir()
        }
        return found == set(files) and all(
            read_bounded(folder / name, MAX_VOCABULARY_BYTES) == content
            for name, content in files.items()
        )
    except (OSError, ValueError):
        return False


def save_fetched(packed: bytes, name: str) -> Path:
    """Write a packed description into this user's cache, and return its folder.

    Args:
        name: name of the model that was asked for.

    Raises:
        ModelFolderError: it is broken, or of another model.
        RefusedError: it cannot be written, or others may write to the cache.
    """
    description, contents = unpack(packed)
    if description.name != name:
        raise ModelFolderError(f"the cluster was asked for {name} and described another model")
    cache = user_folder(CACHE_NAME)
    try:
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_private_folder(cache, makes=True):
            return save_description(description, contents, cache)
    except OSError as error:
        raise RefusedError(f"{cache} cannot be used: {error.strerror}") from error


def read_contents(folder: Path, description: Description) -> dict[str, bytes]:
    """Return the files of a model's folder that its description names.

    Raises:
        ModelFolderError: a file cannot be read.
    """
    try:
        return {
            name: read_bounded(folder / name, MAX_VOCABULARY_BYTES) for name in description.files
        }
    except OSError as error:
        raise ModelFolderError(f"{error.filename} cannot be read: {error.strerror}") from error


def pack(description: Description, contents: Mapping[str, bytes]) -> bytes:
    """Return a description and its files as compressed JSON."""
    document = {
        "description": {"schema_version": SCHEMA_VERSION, **asdict(description)},
        "contents": {
            name: base64.b64encode(content).decode() for name, content in contents.items()
        },
    }
    return zlib.compress(json.dumps(document).encode(), level=9)


def unpack(packed: bytes) -> tuple[Description, dict[str, bytes]]:
    """Return a description and its files.

    Raises:
        ModelFolderError: it is broken or too large.
    """
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(packed, MAX_UNPACKED_BYTES)
        if not unpacker.eof:
            raise ModelFolderError("it is too large, or its end is missing")
        document: Any = json.loads(text)
        description = parse_description(document["description"])
        contents = {
            str(name): base64.b64decode(content, validate=True)
            for name, content in document["contents"].items()
        }
    except UNREADABLE as error:
        raise ModelFolderError("a packed description is broken") from error
    except ModelFolderError as error:
        raise ModelFolderError(f"a packed description is broken: {error}") from error
    if contents.keys() != description.files.keys():
        raise ModelFolderError("a packed description holds other files than it names")
    return description, contents


def to_lines(packed: bytes) -> Iterator[str]:
    """Yield a packed description as lines for a log."""
    text = base64.b64encode(packed).decode()
    for start in range(0, len(text), LINE_CHARACTERS):
        yield LINE_PREFIX + text[start : start + LINE_CHARACTERS]


def from_lines(lines: Iterable[str]) -> bytes | None:
    """Return the packed description in a log, among other lines; None without one.

    Raises:
        ModelFolderError: its lines are broken.
    """
    parts = [
        line.strip().removeprefix(LINE_PREFIX) for line in lines if line.startswith(LINE_PREFIX)
    ]
    try:
        return base64.b64decode("".join(parts), validate=True) if parts else None
    except ValueError as error:
        raise ModelFolderError("the log of the job holds a broken description") from error
