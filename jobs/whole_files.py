"""Files that a user names, or that a report holds: whole or not at all, and never through a link.

Others may write to the folder of such a file, and plant a link under a name that is known before.
So a file is made in a new folder of a random name beside its place, which only this user can enter,
and takes its name by a rename, which replaces a link and leaves alone the file to which it leads.
What is left over is removed, and nothing else. `store` and `export` have their own, by descriptors
of open folders.
"""

import errno
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import UnwritableError
from pipelines.third_party_texts import DISK_FULL_ERRNOS

MAX_SUFFIX_CHARACTERS = 16


@contextmanager
def written_whole(path: Path, *, replaces: bool = True) -> Generator[Path]:
    """Yield the path of an unfinished file, which becomes `path` at the end of the block.

    It has the suffix of `path`, by which libraries choose a format.

    Args:
        replaces: replace a file that is there.

    Raises:
        FileExistsError: a file is there, and is not to be replaced.
        OSError: the file cannot be written.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".nagfarm-") as folder:
        unfinished = Path(folder, f"unfinished{path.suffix.lower()[:MAX_SUFFIX_CHARACTERS]}")
        yield unfinished
        if replaces:
            unfinished.replace(path)
        else:
            _take_free_name(unfinished, path)


def _take_free_name(unfinished: Path, path: Path) -> None:
    try:
        path.hardlink_to(unfinished)
    except FileExistsError:
        raise
    except OSError as error:  # a file system without hard links
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        unfinished.rename(path)


@contextmanager
def written_for(option: str, path: Path) -> Generator[Path]:
    """Do the same as `written_whole` for the file of an option.

    Raises:
        UnwritableError: the file cannot be written.
    """
    with writing_for(option, path), written_whole(path) as unfinished:
        yield unfinished


def write_text_for(option: str, path: Path, text: str) -> None:
    """Write a text file. Raises UnwritableError if it cannot be written."""
    with written_for(option, path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


@contextmanager
def writing_for(option: str, path: Path) -> Generator[None]:
    """Turn the operating system's errors in the block into that of an option.

    Raises:
        UnwritableError: the file or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(option, path, error) from error


def unwritable(option: str, path: Path, error: OSError) -> UnwritableError:
    """Return the error for a file that cannot be written, with the remedy."""
    is_full = error.errno in DISK_FULL_ERRNOS
    remedy = "free space there, or raise the quota" if is_full else "name another place"
    return UnwritableError(f"{option}: cannot write {path}: {error.strerror or error}; {remedy}")
