"""Files below a folder: written so that a power cut leaves a whole file or none, and listed.

Decides how bytes get onto a disk; `folder_store` decides which file holds which object.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from pathlib import Path

from jobs.store.uri import StoredObject, is_key

CHUNK_BYTES = 1 << 20


@contextlib.contextmanager
def temporary_file(path: Path, body: bytes | Path) -> Generator[Path]:
    """Write `body` to a file beside `path` and sync it; remove the file unless it was moved."""
    temporary = path.with_name(f".{secrets.token_hex(16)}.partial")
    try:
        with temporary.open("xb") as target:
            if isinstance(body, Path):
                with body.open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        target.write(chunk)
            else:
                target.write(body)
            target.flush()
            os.fsync(target.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def walk(root: Path, folder: str) -> Iterator[StoredObject]:
    """Yield the files below `root / folder` in the order of their paths relative to `root`.

    Holds the names of one folder on each level. Leaves out a file that is removed meanwhile.
    """
    try:
        with os.scandir(root / folder) as entries:
            # S3 compares whole keys, so that the slash after a folder's name counts
            names = sorted(
                f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
                for entry in entries
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name in names:
        below = f"{folder}/{name}".removeprefix("/")
        if name.endswith("/"):
            if is_key(below.removesuffix("/")):  # nothing below another folder can be an object
                yield from walk(root, below.removesuffix("/"))
            continue
        with contextlib.suppress(FileNotFoundError):
            status = (root / below).lstat()
            if stat.S_ISREG(status.st_mode):
                yield StoredObject(below, status.st_size, status.st_mtime)
