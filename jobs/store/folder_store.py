"""A folder that keeps the promises of S3.

An object appears whole or not at all, and a conditional write has one winner. `folder_files`
decides how bytes get onto a disk, `records/` which objects are written, and in which order.
"""

import contextlib
import errno
import secrets
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from jobs.errors import (
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.store.folder_files import CHUNK_BYTES, sync_folder, temporary_file, walk
from jobs.store.uri import (
    ACCESS_CHECK_PREFIX,
    FolderLocation,
    StoredObject,
    check_body,
    check_key,
    is_key,
)
from pipelines.third_party_texts import DISK_FULL_ERRNOS

PASSING_ERRNOS = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EAGAIN,
        errno.EBUSY,
        errno.EMFILE,
        errno.ENFILE,
    }
)
NO_LINK_ERRNOS = frozenset(
    {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}
)


@dataclass(frozen=True)
class FolderStore:
    """Objects as files below one folder.

    The first write creates the folder. The names of temporary files begin with a dot.
    """

    location: FolderLocation

    @property
    def uri(self) -> str:
        return str(self.location)

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{quote(check_key(key))}"

    def put(self, key: str, body: bytes | Path, content_type: str) -> None:
        """Write an object and replace an existing one. A folder keeps no content type."""
        del content_type
        check_body(key, body)
        with self._errors("write", key):
            path = self._path_for_writing(key)
            with temporary_file(path, body) as temporary:
                temporary.replace(path)
            sync_folder(path.parent)

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object only if its key is free.

        Raises:
            ObjectExistsError: an object lies there; it is unchanged.
        """
        del content_type
        with self._errors("write", key):
            path = self._path_for_writing(key)
            with temporary_file(path, body) as temporary:
                try:
                    path.hardlink_to(temporary)
                except FileExistsError as error:
                    raise ObjectExistsError(f"{self.uri_of(key)} exists already") from error
                except OSError as error:
                    if error.errno in NO_LINK_ERRNOS:
                        raise StoreRefusedError(
                            f"{self.uri} is on a file system without hard links ({error.strerror}),"
                            " which the commit needs; choose another folder or s3://"
                        ) from error
                    raise
            sync_folder(path.parent)

    def get(self, key: str) -> bytes:
        with self._errors("read", key):
            return self._path(key).read_bytes()

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._errors("read", key), self._path(key).open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def exists(self, key: str) -> bool:
        with self._errors("look for", key):
            try:
                return self._path(key).is_file()
            except NotADirectoryError:
                return False

    def delete(self, key: str) -> None:
        """Remove an object. A missing object is not an error, as on S3."""
        with self._errors("remove", key):
            self._path(key).unlink(missing_ok=True)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of their keys.

        Symbolic links are not followed.
        """
        folder, _, _ = prefix.rpartition("/")
        with self._errors("list", prefix):
            if folder:
                self._path(folder)
            for found in walk(self._root, folder):
                if found.key.startswith(prefix) and is_key(found.key):
                    yield found

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def check_access(self) -> None:
        """Prove that the folder can be written to, conditionally too, and read; leave nothing.

        Raises:
            StoreRefusedError: it cannot; the message says what to change.
        """
        with self._errors("write", ""):
            made = [folder for folder in (self._root, *self._root.parents) if not folder.exists()]
            key = f"{ACCESS_CHECK_PREFIX}{secrets.token_hex(8)}"
            try:
                self.put_if_absent(key, b"check", "text/plain")
                with contextlib.suppress(ObjectExistsError):
                    self.put_if_absent(key, b"again", "text/plain")
                if self.get(key) != b"check":
                    raise StoreRefusedError(
                        f"{self.uri} does not keep the bytes that are written to it"
                    )
            finally:
                with contextlib.suppress(FileNotFoundError):
                    (self._root / key).unlink()
                with contextlib.suppress(OSError):  # another program has put a file into it by now
                    for folder in made:
                        folder.rmdir()

    @property
    def _root(self) -> Path:
        return self.location.path

    def _path(self, key: str) -> Path:
        """Return the file of a key.

        Raises:
            StoreRefusedError: the key is invalid, or a link in the folder leads out of it.
        """
        path = self._root / check_key(key)
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise StoreRefusedError(f"{key!r} leads out of {self.uri} through a symbolic link")
        return path

    def _path_for_writing(self, key: str) -> Path:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def _errors(self, doing: str, key: str) -> Generator[None]:
        """Turn the operating system's errors into the store's."""
        where = f"{self.uri}/{key}".rstrip("/")
        try:
            yield
        except StoreError:
            raise
        except FileNotFoundError as error:
            raise ObjectMissingError(f"{where} does not exist") from error
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise StoreUnavailableError(
                    f"cannot {doing} {where} now: {error.strerror}; free space there, or raise the "
                    "quota"
                ) from error
            if error.errno in PASSING_ERRNOS:
                raise StoreUnavailableError(
                    f"cannot {doing} {where} now: {error.strerror}"
                ) from error
            raise StoreRefusedError(
                f"cannot {doing} {where}: {error.strerror}; check its permissions"
            ) from error
