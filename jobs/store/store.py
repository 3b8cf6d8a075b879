"""The promises of a store, and the choice between S3 and a folder.

Only a process that uses S3 imports boto3, which takes a third of a second.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from jobs.errors import RefusedError, StoreError
from jobs.settings.run_config import StoreConfig
from jobs.store.folder_store import FolderStore
from jobs.store.uri import S3Location, StoredObject, parse_object_uri, parse_output_uri

if TYPE_CHECKING:
    from jobs.store.s3_connection import Connection


class Store(Protocol):
    """Objects under keys. Cheap to pickle; the receiving process opens its own connection."""

    @property
    def uri(self) -> str: ...

    def uri_of(self, key: str) -> str: ...

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        """Write a whole object and replace an existing one. Return when it is proven to be there.

        Args:
            sha256: digest of the body, if the caller has it; otherwise it is computed where needed.

        Raises:
            StoreUnavailableError: no answer, no space, or the store confirms other bytes than were
                sent.
        """
        ...

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object only if its key is free; of several writers at once exactly one succeeds.

        Raises:
            ObjectExistsError: an object lies there. After an answer that was lost on the way, it
                may be the caller's own.
            StoreUnavailableError: as `put`; the object may have been written nevertheless.
        """
        ...

    def get(self, key: str) -> bytes:
        """Return an object's bytes.

        Raises:
            ObjectMissingError: no object lies there.
        """
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes piece by piece, so that a large one needs little memory.

        Raises:
            ObjectMissingError: no object lies there.
        """
        ...

    def exists(self, key: str) -> bool: ...

    def holds(self, key: str, num_bytes: int) -> bool:
        """Return True if an object of that size lies there; its bytes are not read."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is not an error."""
        ...

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose keys begin with `prefix`, page by page.

        Folders and AWS yield them in the order of their keys. Other endpoints may not.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the keys of `entries`."""
        ...

    def now(self) -> float:
        """Return the time by the clock that dates the objects, in seconds since the epoch.

        It may be up to a second behind. Ages and leases are judged by it alone, because the clocks
        of machines may be wrong.
        """
        ...

    def check_access(self) -> None:
        """Prove, before a run, everything that the commit needs of the store; leave nothing."""
        ...


def open_store(uri: str, config: StoreConfig) -> Store:
    """Return the store that an output URI names. No request is made; `check_access` does that.

    Raises:
        OutputUriError: the URI has neither the form `s3://bucket/prefix` nor `file:///folder`.
        StoreRefusedError: boto3 cannot make a client of the configuration or the environment.
    """
    location = parse_output_uri(uri)
    if not isinstance(location, S3Location):
        return FolderStore(location)
    from jobs.store.s3_store import S3Store

    return S3Store(location, config)


def open_existing(uri: str, config: StoreConfig) -> Store:
    """Return the store of an output for a command that looks after it, and makes no output.

    On S3 a prefix needs no making, so that an empty output exists too.

    Raises:
        StoreRefusedError: the output is a folder that does not exist.
    """
    store = open_store(uri, config)
    if isinstance(store, FolderStore):
        store.check_exists()
    return store


class ObjectsOfS3:
    """Objects of S3 that lie anywhere, such as images, read over one connection.

    A client costs more than a read: 0.1 s of a processor, and perhaps a question for credentials.
    After an error the next read has a new one, with credentials looked up anew. Threads may share
    it. Nothing is looked up before the first read.

    Args:
        max_bytes: size above which an object is refused.
    """

    def __init__(self, config: StoreConfig, max_bytes: int) -> None:
        self._config = config
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._connection: Connection | None = None

    def read(self, uri: str) -> bytes:
        """Return one object.

        Raises:
            OutputUriError: the URI does not have the form `s3://bucket/key`.
            RefusedError: the object is larger than `max_bytes`.
            ObjectMissingError: no object lies there.
            StoreError: the store does not answer or refuses.
        """
        from jobs.store.s3_connection import read_parameters
        from jobs.store.s3_errors import s3_errors

        bucket, key = parse_object_uri(uri)
        wanted = {"Bucket": bucket, "Key": key, **read_parameters(self._config)}
        try:
            with s3_errors("read", uri):
                stream = self._connect().client.get_object(**wanted)["Body"]
                with contextlib.closing(stream):
                    body = stream.read(self._max_bytes + 1)
        except StoreError:
            with self._lock:
                self._connection = None
            raise
        if len(body) > self._max_bytes:
            raise RefusedError(f"{uri} is larger than {self._max_bytes:,} bytes")
        return body

    def _connect(self) -> "Connection":
        from jobs.store.s3_connection import connect

        with self._lock:
            if self._connection is None:
                self._connection = connect(self._config)
            return self._connection


def read_object(uri: str, config: StoreConfig, max_bytes: int) -> bytes:
    """Read one object of S3, such as a file of prompts. See `ObjectsOfS3.read`."""
    return ObjectsOfS3(config, max_bytes).read(uri)
