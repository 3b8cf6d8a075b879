"""Open and read files that strangers provide: regular files alone, and never more than a limit.

A pipe or a device in the place of a file would block for ever, or never end. The file is opened
without waiting and looked at when it is open, so that nothing can be put in its place in between.
Loads without torch.
"""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular_file(path: Path) -> BufferedReader:
    """Open a regular file for reading, through links.

    Raises:
        OSError: the file cannot be opened, or is a folder, a pipe or a device; `strerror` says so.
        ValueError: the path holds NUL.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        refuse_special(os.fstat(descriptor).st_mode, path)
        return os.fdopen(descriptor, "rb")
    except OSError:
        os.close(descriptor)
        raise


def refuse_special(mode: int, path: Path) -> None:
    """Raise OSError for the mode of anything but a regular file."""
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"expected a regular file, this is {kind}", str(path))


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises:
        OSError, ValueError: as `open_regular_file`, or the file is larger.
    """
    with open_regular_file(path) as file:
        content = file.read(max_bytes + 1) or b""
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {max_bytes:,} bytes", str(path))
    return content
