"""What a full disk looks like, to this process and to ffmpeg.

Decides that it passes: clips wait for space as they wait for the store.
"""

import errno
import os
import shutil
import socket
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from jobs.errors import DiskFullError

FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})
FULL_MESSAGES = tuple(os.strerror(number) for number in FULL_ERRNOS)


@contextmanager
def disk_errors(folder: Path) -> Generator[None]:
    """Raises DiskFullError where the operating system says that there is no space."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_ERRNOS:
            raise
        raise disk_full(folder) from error


def disk_full(folder: Path) -> DiskFullError:
    host = socket.gethostname()
    return DiskFullError(
        f"no space for encoded clips in {folder} on {host}: free some, or set workers.spool_folder"
    )


def check_free(folder: Path, num_bytes: int) -> None:
    """Raises DiskFullError if the disk of a folder that exists has no room for so many bytes."""
    if shutil.disk_usage(folder).free < num_bytes:
        raise disk_full(folder)


def says_disk_full(message: str) -> bool:
    """Whether another program's complaint is about space."""
    return any(text in message for text in FULL_MESSAGES)
