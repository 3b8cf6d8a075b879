"""Folders of this machine that belong to this user alone: where they lie, and how they are opened.

Other users may write to the folder of temporary files, so a name in it may be theirs: a folder, or
a link into this user's home. A folder is therefore opened first, never through a link, and owner
and mode are checked on the open folder. All that happens in it goes through its descriptor, so
that renaming the path meanwhile changes nothing.
"""

import errno
import os
import pwd
import stat
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobs.errors import SpoolError
from jobs.store.folder_files import FILE_FLAGS, FOLDER_FLAGS

WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
REFUSED_OPENING = (errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM)


def spool_root(folder: str | Path | None) -> Path:
    """Return the folder of all spools.

    Without a configured folder it lies in the user's cache, `$XDG_CACHE_HOME` or `~/.cache`: on a
    disk, private, and the same for a service and for a shell. `$XDG_RUNTIME_DIR` is none of these
    three, since it is memory that a logout clears. A user without such a cache gets a
    folder in that of temporary files.
    """
    if folder is not None:
        return Path(folder)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    with suppress(RuntimeError):  # the user has no home
        cache = cache.expanduser()
    if cache.is_absolute() and _holds_private_folders(cache):
        return cache / "nagfarm-spool"
    return Path(tempfile.gettempdir(), f"nagfarm-spool-{os.geteuid()}")


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


@contextmanager
def private_folder(path: Path, parent: int | None = None, *, makes: bool = False) -> Generator[int]:
    """Open a folder that belongs to this user alone, and yield its descriptor.

    Args:
        parent: descriptor of the folder that holds it; None to find it by its whole path.
        makes: make the folder if it is missing.

    Raises:
        FileNotFoundError: it is missing.
        SpoolError: it is a link or no folder, it belongs to another user, or others may write to
            it.
    """
    name = path if parent is None else path.name
    if makes:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    try:
        folder = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno in REFUSED_OPENING:
            raise _refusal(path, os.stat(name, dir_fd=parent, follow_symlinks=False)) from error
        raise
    try:
        if not is_private(status := os.fstat(folder)):
            raise _refusal(path, status)
        yield folder
    finally:
        os.close(folder)


def read_private_file(name: str, folder: int) -> bytes:
    """Return the content of a file in a private folder.

    Raises:
        FileNotFoundError: it is missing.
        OSError: it cannot be read, it is a link or no file, another name of a file that may lie
            elsewhere, or another user's.
    """
    descriptor = os.open(name, FILE_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_own = status.st_uid == os.geteuid() and status.st_nlink == 1
        if not (stat.S_ISREG(status.st_mode) and is_own):
            raise OSError(errno.EINVAL, "not a file of this user alone", name)
        return file.read()


def _refusal(path: Path, status: os.stat_result) -> SpoolError:
    """Return the error for a folder that cannot be trusted, with the remedy that is possible.

    Only its owner can remove another user's name from the folder of temporary files.
    """
    elsewhere = "set workers.spool_folder to a folder of this user"
    if status.st_uid != os.geteuid():
        return SpoolError(f"the spool {path} belongs to {_user(status.st_uid)}: {elsewhere}")
    if not stat.S_ISDIR(status.st_mode):
        return SpoolError(
            f"the spool {path} is a link or a file, no folder: remove it, or {elsewhere}"
        )
    return SpoolError(
        f"the spool {path} has the mode {stat.S_IMODE(status.st_mode):o}, expected 700: "
        f"run chmod 700 on it if no other user has used it, or {elsewhere}"
    )


def _user(number: int) -> str:
    try:
        return f"the user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the user number {number}"
