"""The spool's folders: where they lie, and the errors of those that cannot be trusted.

`pipelines.private_folders` opens them.
"""

import errno
import os
import pwd
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import SpoolError
from pipelines.private_folders import (
    FILE_FLAGS,
    NotPrivateError,
    is_own_file,
    open_private_folder,
    user_folder,
)


def spool_root(folder: str | Path | None) -> Path:
    """Return the folder of all spools: the configured one, or one of this user's."""
    return user_folder("nagfarm-spool") if folder is None else Path(folder)


@contextmanager
def private_folder(path: Path, parent: int | None = None, *, makes: bool = False) -> Generator[int]:
    """Open a folder that belongs to this user alone. See `open_private_folder`.

    Raises:
        FileNotFoundError: it is missing.
        SpoolError: it is a link or no folder, it belongs to another user, or others may write to
            it.
    """
    try:
        with open_private_folder(path, parent, makes=makes) as folder:
            yield folder
    except NotPrivateError as error:
        raise _refusal(path, error.status) from error


def read_private_file(name: str, folder: int) -> bytes:
    """Return the content of a file in a private folder.

    Raises:
        FileNotFoundError: it is missing.
        OSError: it cannot be read, it is a link or no file, another name of a file that may lie
            elsewhere, or another user's.
    """
    descriptor = os.open(name, os.O_RDONLY | FILE_FLAGS, dir_fd=folder)
    with os.fdopen(descriptor, "rb") as file:
        if not is_own_file(os.fstat(descriptor)):
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
