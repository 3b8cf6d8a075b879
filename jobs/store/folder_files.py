"""Files below an open folder: written so that a power cut leaves a whole file or none, and listed.

Decides how bytes get onto a disk; `folder_store` decides which file holds which object, and
`folder_root` which folder is the output's. Everything goes through descriptors of open folders and
never through a link, so that what happens to a path meanwhile changes nothing.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from jobs.store.uri import StoredObject, is_key

CHUNK_BYTES = 1 << 20
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK, because opening a pipe would wait for its writer.
FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
NO_LINK_ERRNOS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
)


class NoHardLinksError(OSError):
    """The file system has no hard links."""


@contextlib.contextmanager
def folder_below(root: int, names: Sequence[str], *, makes: bool = False) -> Generator[int]:
    """Open a folder below an open one and yield its descriptor.

    Args:
        names: the names on the way to the folder; none for the open folder itself.
        makes: make the folders that are missing.

    Raises:
        FileNotFoundError: one of the folders is missing.
        OSError: with ELOOP if one of them is a symbolic link.
    """
    folder = os.dup(root)
    try:
        for name in names:
            below = _open_folder(folder, name, makes=makes)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def _open_folder(folder: int, name: str, *, makes: bool) -> int:
    refuse_link(folder, name)
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=folder)
    except FileNotFoundError:
        if not makes:
            raise
    with contextlib.suppress(FileExistsError):  # another writer was faster
        os.mkdir(name, dir_fd=folder)
    os.fsync(folder)  # else a power cut could leave a record without the folder of its MP4
    return os.open(name, FOLDER_FLAGS, dir_fd=folder)


def refuse_link(folder: int, name: str) -> None:
    """Raise OSError with ELOOP if a name is a symbolic link, which could lead anywhere."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def write_file(folder: int, name: str, body: bytes | Path) -> None:
    """Write a file and replace an existing one."""
    with _temporary_file(folder, body) as temporary:
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def write_new_file(folder: int, name: str, body: bytes) -> None:
    """Write a file whose name is free; of several writers at once exactly one succeeds.

    Raises:
        FileExistsError: the name is taken.
        NoHardLinksError: the file system cannot do this.
    """
    with _temporary_file(folder, body) as temporary:
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            if error.errno in NO_LINK_ERRNOS:
                raise NoHardLinksError(error.errno, error.strerror) from error
            raise
    os.fsync(folder)  # makes the new name survive a power cut


@contextlib.contextmanager
def _temporary_file(folder: int, body: bytes | Path) -> Generator[str]:
    """Write `body` to a new file and sync it; remove the file unless it was moved."""
    name = f".{secrets.token_hex(16)}.partial"
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as target:
            if isinstance(body, Path):
                with body.open("rb") as source:
                    while chunk := source.read(CHUNK_BYTES):
                        target.write(chunk)
            else:
                target.write(body)
            target.flush()
            os.fsync(descriptor)
        yield name
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)


def time_of_new_file(folder: int) -> float:
    """Return the time that the file system gives to a file written now; leave nothing."""
    with _temporary_file(folder, b"") as name:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime


def read_file(folder: int, name: str) -> Generator[bytes]:
    """Yield the bytes of a file piece by piece.

    Raises:
        FileNotFoundError: the file is missing, or it is a folder or a pipe.
    """
    refuse_link(folder, name)
    descriptor = os.open(name, FILE_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a file", name)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def walk(folder: int, below: str) -> Iterator[StoredObject]:
    """Yield the files below an open folder in the order of their keys.

    Holds the names of one folder on each level. Leaves out a file that is removed meanwhile.

    Args:
        below: the key of the folder, with a slash at its end; empty for the root.
    """
    with os.scandir(folder) as entries:
        # S3 compares whole keys, so that the slash after a folder's name counts
        names = sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
        )
    for name in names:
        if name.endswith("/"):
            if is_key(f"{below}{name}".removesuffix("/")):  # else it can hold no object
                with (
                    contextlib.suppress(FileNotFoundError, NotADirectoryError),
                    folder_below(folder, (name.removesuffix("/"),)) as inner,
                ):
                    yield from walk(inner, f"{below}{name}")
            continue
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISREG(status.st_mode):
                yield StoredObject(f"{below}{name}", status.st_size, status.st_mtime)
