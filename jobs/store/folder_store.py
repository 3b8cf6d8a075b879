"""A folder that keeps the promises of S3.

An object appears whole or not at all, and a conditional write has one winner. `folder_files`
decides how bytes get onto a disk, `records/` which objects are written, and in which order.
"""

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Generator, Iterator
from pathlib import Path
from urllib.parse import quote

from jobs.errors import (
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.store.folder_files import (
    NoHardLinksError,
    folder_below,
    read_file,
    refuse_link,
    walk,
    write_file,
    write_new_file,
)
from jobs.store.folder_root import FolderRoot
from jobs.store.uri import (
    ACCESS_CHECK_PREFIX,
    FolderLocation,
    StoredObject,
    check_body,
    check_key,
    is_key,
    is_listed,
)
from pipelines.third_party_texts import DISK_FULL_ERRNOS

# A file system that is away for a time: its server or its network, its mount, or the machine's
# files. Some of these errors exist on Linux alone.
OUTAGE_ERRNOS = frozenset(
    number
    for name in (
        *("EIO", "EROFS", "ESTALE", "ETIMEDOUT", "ENODEV", "ENXIO", "ENOTCONN", "ESHUTDOWN"),
        *("EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENETRESET", "EREMOTEIO"),
        *("ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "EPIPE", "ECOMM", "ENOLINK", "EPROTO"),
        *("ENOLCK", "EKEYEXPIRED", "EKEYREVOKED", "EKEYREJECTED", "ENOKEY", "EUCLEAN"),
        *("EAGAIN", "EBUSY", "EINTR", "EMFILE", "ENFILE"),
    )
    if (number := getattr(errno, name, None)) is not None
)


class FolderStore:
    """Objects as files below one folder.

    The first write creates the folder; if it is lost later, each operation is refused until it is
    back, see `folder_root`. The names of temporary files begin with a dot. Threads may share one.
    """

    def __init__(self, location: FolderLocation) -> None:
        self.location = location
        self._root = FolderRoot(location.path)

    @property
    def uri(self) -> str:
        return str(self.location)

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{quote(check_key(key))}"

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        """Write an object and replace an existing one. A folder keeps no content type."""
        del content_type, sha256
        check_body(key, body)
        with self._errors("write", key), self._place_for(key) as (folder, name):
            refuse_link(folder, name)
            write_file(folder, name, body)

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object only if its key is free.

        Raises:
            ObjectExistsError: an object lies there; it is unchanged.
        """
        del content_type
        with self._errors("write", key), self._place_for(key) as (folder, name):
            refuse_link(folder, name)
            try:
                write_new_file(folder, name, body)
            except FileExistsError as error:
                raise ObjectExistsError(f"{self.uri_of(key)} exists already") from error

    def get(self, key: str) -> bytes:
        return b"".join(self.chunks(key))

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._errors("read", key), self._place_of(key) as (folder, name):
            yield from read_file(folder, name)

    def exists(self, key: str) -> bool:
        with self._errors("look for", key):
            try:
                with self._place_of(key) as (folder, name):
                    refuse_link(folder, name)
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    return stat.S_ISREG(status.st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def holds(self, key: str, num_bytes: int) -> bool:
        return is_listed(self.entries(key), key, num_bytes)

    def delete(self, key: str) -> None:
        """Remove an object. A missing object is not an error, as on S3."""
        with (
            self._errors("remove", key),
            contextlib.suppress(FileNotFoundError),
            self._place_of(key) as (folder, name),
        ):
            refuse_link(folder, name)
            os.unlink(name, dir_fd=folder)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix`, in the order of their keys.

        Symbolic links are not followed.
        """
        below = prefix.rpartition("/")[0]
        names = check_key(below).split("/") if below else []
        with (
            self._errors("list", prefix),
            contextlib.suppress(FileNotFoundError),
            self._root.opened() as root,  # a file in its place is refused
            contextlib.suppress(NotADirectoryError),
            folder_below(root, names) as folder,
        ):
            for found in walk(folder, f"{below}/" if below else ""):
                if found.key.startswith(prefix) and is_key(found.key):
                    yield found

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def check_exists(self) -> None:
        """Prove that the folder is there, before a command looks after it.

        Raises:
            StoreRefusedError: it is missing.
        """
        with self._errors("open", ""):
            try:
                with self._root.opened():
                    pass
            except (FileNotFoundError, NotADirectoryError) as error:
                raise StoreRefusedError(
                    f"{self.uri} is not a folder on this machine; correct the URI, or mount its "
                    "file system"
                ) from error

    def now(self) -> float:
        """Return the time that the file system gives to a new file: on a share, its server's."""
        with self._errors("write", ""):
            return self._root.now()

    def check_access(self) -> None:
        """Prove that the folder can be written to, conditionally too, and read; leave nothing.

        Raises:
            StoreRefusedError: it cannot; the message says what to change.
        """
        path = self.location.path
        with self._errors("write", ""):
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            try:
                with self._root.made(is_marked=False) as root:
                    self._check_writing(root, f"{ACCESS_CHECK_PREFIX}{secrets.token_hex(8)}")
            finally:
                with contextlib.suppress(OSError):  # another program has put a file into it by now
                    for folder in made:
                        folder.rmdir()

    def _check_writing(self, root: int, name: str) -> None:
        try:
            write_new_file(root, name, b"check")
            with contextlib.suppress(FileExistsError):
                write_new_file(root, name, b"again")
            if b"".join(read_file(root, name)) != b"check":
                raise StoreRefusedError(
                    f"{self.uri} does not keep the bytes that are written to it"
                )
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=root)

    @contextlib.contextmanager
    def _place_of(self, key: str) -> Generator[tuple[int, str]]:
        """Open the folder of a key, and yield its descriptor and the name in it."""
        *names, name = check_key(key).split("/")
        with self._root.opened() as root, folder_below(root, names) as folder:
            yield folder, name

    @contextlib.contextmanager
    def _place_for(self, key: str) -> Generator[tuple[int, str]]:
        """As `_place_of`, but make the folders."""
        *names, name = check_key(key).split("/")
        with self._root.made() as root, folder_below(root, names, makes=True) as folder:
            yield folder, name

    @contextlib.contextmanager
    def _errors(self, doing: str, key: str) -> Generator[None]:
        """Turn the operating system's errors into the store's."""
        where = f"{self.uri}/{key}".rstrip("/")
        try:
            yield
        except StoreError:
            raise
        except FileNotFoundError as error:
            if doing == "write":
                raise StoreUnavailableError(
                    f"cannot write {where} now: a folder on the way was removed meanwhile"
                ) from error
            raise ObjectMissingError(f"{where} does not exist") from error
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreRefusedError(
                f"cannot {doing} {where}: a file is in the place of a folder; correct the output"
            ) from error
        except NoHardLinksError as error:
            raise StoreRefusedError(
                f"{self.uri} is on a file system without hard links ({error.strerror}), which the "
                "commit needs; choose another folder or s3://"
            ) from error
        except OSError as error:
            if error.errno in DISK_FULL_ERRNOS:
                raise StoreUnavailableError(
                    f"cannot {doing} {where} now: {error.strerror}; free space there, or raise the "
                    "quota"
                ) from error
            if error.errno == errno.ELOOP:
                raise StoreRefusedError(
                    f"cannot {doing} {where}: a symbolic link is in the way, which could lead out "
                    "of the output; remove it"
                ) from error
            if error.errno in OUTAGE_ERRNOS:
                raise StoreUnavailableError(
                    f"cannot {doing} {where} now: {error.strerror}"
                ) from error
            raise StoreRefusedError(
                f"cannot {doing} {where}: {error.strerror}; check its permissions"
            ) from error
