"""A store in memory, with S3's promises and with failures that a test has queued."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobs.errors import ObjectExistsError, ObjectMissingError, StoreUnavailableError
from jobs.store.uri import StoredObject, check_body, check_key, is_listed

# unavailable: the operation did not happen, and no answer came
# lost: the operation happened, and no answer came
# lie: the operation did not happen, and the answer confirms it, with the checksum of other bytes
Trouble = Literal["unavailable", "lost", "lie"]


@dataclass(frozen=True, eq=False)
class MemoryObject:
    body: bytes
    modified_at: float


@dataclass
class MemoryStore:
    """Objects in a dictionary, listed in the order of their keys.

    Args:
        clock: the store's clock, in seconds since the epoch.
        troubles: one for each operation, in order; None lets an operation pass unharmed.
        believes: beginnings of the keys for which a lying answer is accepted, as a client without a
            proof of arrival would.
    """

    clock: Callable[[], float] = time.time
    troubles: deque[Trouble | None] = field(default_factory=deque[Trouble | None])
    believes: tuple[str, ...] = ()
    objects: dict[str, MemoryObject] = field(default_factory=dict[str, MemoryObject])

    @property
    def uri(self) -> str:
        return "memory://store"

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{check_key(key)}"

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        check_body(key, body)
        content = body if isinstance(body, bytes) else body.read_bytes()
        new = MemoryObject(content, self.now())
        self._write(check_key(key), lambda: self.objects.__setitem__(key, new))

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        new = MemoryObject(body, self.now())

        def write() -> None:
            if self.objects.setdefault(key, new) is not new:  # atomic, so that threads may race
                raise ObjectExistsError(f"{self.uri_of(key)} exists already")

        self._write(check_key(key), write)

    def get(self, key: str) -> bytes:
        self._suffer()
        if (found := self.objects.get(check_key(key))) is None:
            raise ObjectMissingError(f"{self.uri_of(key)} does not exist")
        return found.body

    def chunks(self, key: str) -> Iterator[bytes]:
        yield self.get(key)

    def exists(self, key: str) -> bool:
        self._suffer()
        return check_key(key) in self.objects

    def holds(self, key: str, num_bytes: int) -> bool:
        return is_listed(self.entries(key), key, num_bytes)

    def delete(self, key: str) -> None:
        self._write(check_key(key), lambda: self.objects.pop(key, None))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        self._suffer()
        for key, found in sorted(self.objects.items()):
            if key.startswith(prefix):
                yield StoredObject(key, len(found.body), found.modified_at)

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def now(self) -> float:
        return self.clock()

    def check_access(self) -> None:
        self._suffer()

    def _write(self, key: str, write: Callable[[], object]) -> None:
        trouble = self.troubles.popleft() if self.troubles else None
        try:
            if trouble in (None, "lost"):
                write()
        except ObjectExistsError:
            if trouble is None:
                raise
        if trouble in ("lost", "unavailable"):
            raise StoreUnavailableError(f"no answer about {key}")
        if trouble == "lie" and not key.startswith(self.believes):
            raise StoreUnavailableError(
                f"the store confirms other bytes than were sent under {key}"
            )

    def _suffer(self) -> None:
        """Raise the next trouble; a read changes nothing, so every trouble is a missing answer."""
        if self.troubles and self.troubles.popleft() is not None:
            raise StoreUnavailableError("no answer")
