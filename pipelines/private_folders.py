"""Folders of this machine that belong to this user alone: where they lie, and how they are opened.

Other users may write to the folder of temporary files, so a name in it may be theirs: a folder, or
a link into this user's home. A folder is therefore opened first, never through a link, and owner
and mode are checked on the open folder. All that happens in it goes through its descriptor, so
that renaming the path meanwhile changes nothing. Loads without torch.
"""

import errno
import os
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
# O_NONBLOCK, because opening a pipe would wait for its writer.
FILE_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
REFUSED_OPENING = (errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM)


class NotPrivateError(OSError):
    """A folder is a link or no folder, belongs to another user, or others may write to it.

    Attributes:
        status: the status of what lies there, which is the reason.
    """

    status: os.stat_result

    @classmethod
    def of(cls, path: Path, status: os.stat_result) -> Self:
        """Return the error for a folder with this status."""
        error = cls(errno.EPERM, "not a folder of this user alone", str(path))
        error.status = status
        return error


def user_folder(name: str) -> Path:
    """Return the place of one of this user's folders.

    It lies in the user's cache, `$XDG_CACHE_HOME` or `~/.cache`: on a disk, private, and the same
    for a service and for a shell. `$XDG_RUNTIME_DIR` is none of these three, since it is memory
    that a logout clears. A user without such a cache gets a folder in that of temporary files.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    with suppress(RuntimeError):  # the user has no home
        cache = cache.expanduser()
    if cache.is_absolute() and _holds_private_folders(cache):
        return cache / name
    return Path(tempfile.gettempdir(), f"{name}-{os.geteuid()}")


def _holds_private_folders(folder: Path) -> bool:
    """Return True if only this user can make names in a folder, which its parent may lack yet."""
    for place in (folder, folder.parent):
        try:
            status = place.stat()
        except FileNotFoundError:
            continue
        except OSError:
            return False
        return is_private(status) and os.access(place, os.W_OK | os.X_OK)
    return False


def is_private(status: os.stat_result) -> bool:
    """Return True for a folder of this user that no other user may write to."""
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & WRITABLE_BY_OTHERS
    )


def is_own_file(status: os.stat_result) -> bool:
    """Return True for a regular file of this user that has no second name elsewhere."""
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1


@contextmanager
def open_private_folder(
    path: Path, parent: int | None = None, *, makes: bool = False
) -> Generator[int]:
    """Open a folder that belongs to this user alone, and yield its descriptor.

    Args:
        parent: descriptor of the folder that holds it; None to find it by its whole path.
        makes: make the folder if it is missing.

    Raises:
        FileNotFoundError: it is missing.
        NotPrivateError: it is a link or no folder, it belongs to another user, or others may write
            to it.
    """
    name = path if parent is None else path.name
    if makes:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    try:
        folder = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno in REFUSED_OPENING:
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            raise NotPrivateError.of(path, status) from error
        raise
    try:
        if not is_private(status := os.fstat(folder)):
            raise NotPrivateError.of(path, status)
        yield folder
    finally:
        os.close(folder)
