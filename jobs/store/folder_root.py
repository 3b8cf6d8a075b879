"""The root of a folder output, and the proof that it still is the folder in which the output began.

A share that is unmounted leaves an empty folder under its path. A run that made its folders there
anew would commit its clips to another disk. So the first write puts a file of random bytes into the
root, and from its first look on a process accepts only a root that holds the same bytes. They prove
it on every machine and after every mount; the numbers of device and inode differ there, and serve
only until the root has its bytes.
"""

import errno
import os
import secrets
import time
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from jobs.errors import StoreUnavailableError
from jobs.store.folder_files import read_file, time_of_new_file, write_new_file
from pipelines.third_party_texts import DISK_FULL_ERRNOS

MARK_FILE = ".nagfarm-output"  # the dot keeps it out of listings
UNWRITABLE_ERRNOS = DISK_FULL_ERRNOS | {
    *(errno.ENOENT, errno.ENOTDIR),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}
MAX_RACES = 10  # other processes may remove a folder that their check of the access has made


class FolderRoot:
    """The root folder of an output, as one process knows it.

    Threads may share one, and it is pickled with what it knows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark: bytes | None = None
        self._place: tuple[int, int] | None = None  # device and inode of a root without a mark

    @contextmanager
    def opened(self) -> Generator[int]:
        """Open the root, prove that it is the same as before, and yield its descriptor.

        Raises:
            FileNotFoundError: it is missing, and this process has not seen it yet.
            StoreUnavailableError: it is lost.
        """
        root = self._open()
        try:
            self._recognize(root)
            yield root
        finally:
            os.close(root)

    @contextmanager
    def made(self, *, is_marked: bool = True) -> Generator[int]:
        """Open the root like `opened`, but make it if this process has not seen it yet.

        Args:
            is_marked: put the mark into it, by which it is recognized from now on.

        Raises:
            StoreUnavailableError: it is lost.
        """
        root = self._open_or_make()
        try:
            self._recognize(root)
            if is_marked and self._mark is None:
                with suppress(FileExistsError):  # another process was faster
                    write_new_file(root, MARK_FILE, secrets.token_hex(16).encode())
                self._recognize(root)
            yield root
        finally:
            os.close(root)

    def now(self) -> float:
        """Return the time that the file system gives to a file written now.

        Where no file can be written, return this machine's time: to remove an object or to take a
        lease, a command has to write first.
        """
        try:
            with self.opened() as root:
                return time_of_new_file(root)
        except OSError as error:
            if error.errno in UNWRITABLE_ERRNOS:
                return time.time()
            raise

    @property
    def _is_known(self) -> bool:
        return self._mark is not None or self._place is not None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        # The folder below a mount is often closed to all, against writes by mistake.
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            if self._is_known:
                raise self._lost() from error
            raise

    def _open_or_make(self) -> int:
        for _ in range(MAX_RACES):
            if not self._is_known:
                self.path.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                return self._open()
        raise StoreUnavailableError(f"{self.path.as_uri()} is removed again and again")

    def _recognize(self, root: int) -> None:
        """Compare the root with what is known of it, and learn the rest."""
        mark, status = _read_mark(root), os.fstat(root)
        place = (status.st_dev, status.st_ino)
        is_same = mark == self._mark if self._mark is not None else self._place in (None, place)
        if not is_same:
            raise self._lost()
        self._mark = mark
        # A root without folders has nothing to lose, and a check of the access may remove it.
        if mark is None and _holds_folders(root):
            self._place = place

    def _lost(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"{self.path.as_uri()} is not the folder any more in which this output began: is its "
            "file system mounted?"
        )


def _read_mark(root: int) -> bytes | None:
    try:
        with closing(read_file(root, MARK_FILE)) as chunks:
            return next(chunks, b"")
    except FileNotFoundError:
        return None


def _holds_folders(root: int) -> bool:
    with os.scandir(root) as entries:
        return any(entry.is_dir(follow_symlinks=False) for entry in entries)
