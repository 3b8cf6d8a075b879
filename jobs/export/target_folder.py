"""The folder that takes exported files: nothing in it is replaced, and no link is followed.

A file appears whole or not at all. It has a time by which the next export knows it without reading
it.
"""

import contextlib
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import IO, Literal, Self

from jobs.errors import RefusedError
from jobs.store.folder_files import NO_LINK_ERRNOS, read_file

PARTIAL = re.compile(r"\.nagfarm-[0-9a-f]{16}\.partial")
ABANDONED_S = 24 * 3600.0
Found = Literal["free", "same", "other"]


class TargetFolder:
    """An open folder. Threads may share one.

    Raises:
        RefusedError: the folder cannot be made or opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileExistsError as error:
            raise RefusedError(f"{path}: expected a folder, this is a file") from error
        except OSError as error:
            raise RefusedError(f"{path} cannot be made: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)

    def remove_abandoned(self) -> None:
        """Remove what an export left that was killed more than a day ago."""
        with os.scandir(self._folder) as entries:
            names = [entry.name for entry in entries if PARTIAL.fullmatch(entry.name)]
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
                if status.st_mtime < time.time() - ABANDONED_S:
                    os.unlink(name, dir_fd=self._folder)

    def find(self, name: str, num_bytes: int, sha256: str, time_ns: int, *, checks: bool) -> Found:
        """Return whether a file of these bytes has the name.

        Args:
            time_ns: time that an export gave to the file, by which it is known.
            checks: read the file nevertheless.
        """
        try:
            status = os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            return "free"
        if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
            return "other"
        if status.st_mtime_ns == time_ns and not checks:
            return "same"
        hasher = hashlib.sha256()
        try:
            for piece in read_file(self._folder, name):
                hasher.update(piece)
        except PermissionError:  # someone else's
            return "other"
        return "same" if hasher.hexdigest() == sha256 else "other"

    @contextlib.contextmanager
    def partial_file(self) -> Generator[tuple[str, IO[bytes]]]:
        """Yield the name of a new file and the file; remove what is left of it."""
        name = f".nagfarm-{secrets.token_hex(8)}.partial"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o666, dir_fd=self._folder)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield name, file
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self._folder)

    def publish(self, partial: str, file: IO[bytes], name: str, time_ns: int) -> bool:
        """Give a whole file its name and time; return False if the name is taken."""
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(OSError, OverflowError):  # a time that no file can have
            os.utime(file.fileno(), ns=(time_ns, time_ns))
        try:
            os.link(partial, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINK_ERRNOS:
                raise
            return self._rename(partial, name)
        return True

    def _rename(self, partial: str, name: str) -> bool:
        """Take the name on a file system without hard links, such as that of a USB stick."""
        try:
            os.stat(name, dir_fd=self._folder, follow_symlinks=False)
        except FileNotFoundError:
            os.rename(partial, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            return True
        return False
