"""Reading the objects of an output: in pieces, and again after a broken answer."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeVar

from jobs.errors import StoreError, StoreRefusedError, StoreUnavailableError
from jobs.records.strict_json import whole_document
from jobs.store.store import Store

READ_ATTEMPTS = 3  # a body may break off after botocore's own retries
T = TypeVar("T")
R = TypeVar("R")


class UnreadableError(StoreError):
    """The store answers other requests and does not return this object."""


class ObjectReader:
    """Reads objects of one store. Several threads may share it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._has_read = False

    def read_as(self, key: str, parse: Callable[[bytes], R]) -> R:
        """Return an object, parsed. Raises as `_read`, and as `parse`."""
        return self._read(key, lambda pieces: parse(whole_document(pieces)))

    def digest(self, key: str, max_bytes: int, copy: Path | None = None) -> tuple[int, str]:
        """Return size and SHA-256 of an object's bytes. Stop behind `max_bytes`.

        Args:
            copy: a file to which the bytes are written.

        Raises:
            OSError: the file cannot be written.
            ObjectMissingError, UnreadableError, StoreError: as `_read`.
        """
        with contextlib.nullcontext() if copy is None else copy.open("wb") as file:
            return self.digest_into(key, max_bytes, file)

    def digest_into(self, key: str, max_bytes: int, file: IO[bytes] | None) -> tuple[int, str]:
        """Return size and SHA-256 as `digest`; the bytes replace the content of an open file."""

        def consume(pieces: Iterator[bytes]) -> tuple[int, str]:
            sha256, num_bytes = hashlib.sha256(), 0
            if file is not None:
                file.seek(0)
                file.truncate()
            for piece in pieces:
                sha256.update(piece)
                num_bytes += len(piece)
                if file is not None:
                    file.write(piece)
                if num_bytes > max_bytes:
                    break
            return num_bytes, sha256.hexdigest()

        return self._read(key, consume)

    def _read(self, key: str, consume: Callable[[Iterator[bytes]], T]) -> T:
        """Pass an object's pieces to a function, again from the beginning if they break off.

        Raises:
            ObjectMissingError: no object lies there.
            UnreadableError: the store answers, but does not return this object.
            StoreError: the store does not answer, or no object could be read so far.
        """
        reason = ""
        for _ in range(READ_ATTEMPTS):
            try:
                return consume(self._pieces(key))
            except StoreUnavailableError as error:
                reason = str(error)
            except StoreRefusedError as error:
                if not self._has_read:  # then the credentials are at fault, not this object
                    raise
                raise UnreadableError(str(error)) from error
        self._store.exists(key)  # raises if the store itself is down
        raise UnreadableError(reason)

    def _pieces(self, key: str) -> Iterator[bytes]:
        for piece in self._store.chunks(key):
            self._has_read = True
            yield piece
