"""The images and videos of clips on this machine, by the digest of their bytes.

All workers of this user share the cache. A file is whole or not there, its bytes are hashed when
it is read, and the files that were used longest ago are removed beyond a limit. A cache that is
missing, damaged, full or another user's costs time and nothing else.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobs.records.keys import SHA256
from jobs.worker.private_folder import read_private_file
from pipelines.private_folders import open_private_folder, user_folder

MAX_CACHE_BYTES = 4 * 1024**3
REMAINS_S = 3600.0  # after that time a file that a worker was writing is surely abandoned


class InputCache:
    """The inputs that were read on this machine.

    Args:
        spool_folder: `workers.spool_folder`, which then holds the cache too; None takes a folder of
            the user's own.
        max_bytes: size of all files beyond which the oldest are removed.
    """

    def __init__(self, spool_folder: str | None, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self.folder = (
            user_folder("nagfarm-inputs") if spool_folder is None else Path(spool_folder, "inputs")
        )
        self._max_bytes = max_bytes

    def get(self, sha256: str, fetch: Callable[[], bytes]) -> bytes:
        """Return the bytes of a digest.

        Args:
            fetch: returns the bytes if they are not here.
        """
        with suppress(OSError), self._opened() as folder:
            content = read_private_file(sha256, folder)
            if hashlib.sha256(content).hexdigest() == sha256:
                os.utime(sha256, dir_fd=folder, follow_symlinks=False)
                return content
        content = fetch()
        with suppress(OSError), self._opened() as folder:
            self._keep(sha256, content, folder)
        return content

    def _keep(self, sha256: str, content: bytes, folder: int) -> None:
        temporary = f".{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            os.rename(temporary, sha256, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            os.unlink(temporary, dir_fd=folder)
            raise
        self._remove_oldest(folder, sha256)

    def _remove_oldest(self, folder: int, newest: str) -> None:
        files: list[tuple[float, str, int]] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another worker has removed it
                    status = entry.stat(follow_symlinks=False)
                    files.append((status.st_mtime, entry.name, status.st_size))
        num_bytes = sum(size for _, _, size in files)
        for used_at, name, size in sorted(files):
            is_remains = name.startswith(".") and used_at < time.time() - REMAINS_S
            is_beyond = num_bytes > self._max_bytes and SHA256.fullmatch(name) and name != newest
            if is_remains or is_beyond:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                num_bytes -= size

    @contextmanager
    def _opened(self) -> Generator[int]:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_private_folder(self.folder, makes=True) as folder:
            yield folder
