"""A compact set of 16-byte digests, for the ids and names of millions of clips.

A Python set of `bytes` takes over 100 bytes for each entry, and a set of 128-bit numbers 75 to 86
(measured with 160,000 to 10 million). This set takes 16 bytes for each slot and fills at most three
quarters of its slots, so that a laptop can plan ten million clips.
"""

import hashlib
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

DIGEST_BYTES = 16
_FREE: bytes | bytearray = bytes(
    DIGEST_BYTES
)  # marks a free slot; a digest equals it with probability 2**-128


def digest_of(text: str) -> bytes:
    """Return a digest of a text, as the set takes it."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


class DigestSet:
    """The digests seen so far, in an open-addressing hash table in one `bytearray`."""

    def __init__(self) -> None:
        self._num_slots = 1024
        self._table = bytearray(self._num_slots * DIGEST_BYTES)
        self._num_digests = 0
        self._has_zero = False  # the digest that is equal to a free slot, which strangers may write

    def __len__(self) -> int:
        return self._num_digests

    def add(self, digest: bytes) -> bool:
        """Add `digest`. Return True if it was not in the set before."""
        if digest == _FREE:
            is_new, self._has_zero = not self._has_zero, True
            self._num_digests += is_new
            return is_new
        if 4 * (self._num_digests + 1) > 3 * self._num_slots:
            self._grow()
        offset, is_new = self._find(digest)
        if is_new:
            self._table[offset : offset + DIGEST_BYTES] = digest
            self._num_digests += 1
        return is_new

    def __contains__(self, digest: bytes) -> bool:
        return self._has_zero if digest == _FREE else not self._find(digest)[1]

    def __iter__(self) -> Iterator[bytes]:
        """Yield the digests in no promised order."""
        if self._has_zero:
            yield bytes(_FREE)
        for start in range(0, len(self._table), DIGEST_BYTES):
            if not self._table.startswith(_FREE, start):
                yield bytes(self._table[start : start + DIGEST_BYTES])

    def _find(self, digest: bytes | bytearray) -> tuple[int, bool]:
        """Return the offset of `digest` and False, or that of its free slot and True."""
        table = self._table
        offset = int.from_bytes(digest[:8], "little") % self._num_slots * DIGEST_BYTES
        while (found := table[offset : offset + DIGEST_BYTES]) != _FREE:
            if found == digest:
                return offset, False
            offset = (offset + DIGEST_BYTES) % len(table)
        return offset, True

    def _grow(self) -> None:
        old, num_slots = self._table, 2 * self._num_slots
        table = bytearray(num_slots * DIGEST_BYTES)
        for start in range(0, len(old), DIGEST_BYTES):
            digest = old[start : start + DIGEST_BYTES]
            if digest == _FREE:
                continue
            offset = int.from_bytes(digest[:8], "little") % num_slots * DIGEST_BYTES
            while not table.startswith(_FREE, offset):
                offset = (offset + DIGEST_BYTES) % len(table)
            table[offset : offset + DIGEST_BYTES] = digest
        self._table, self._num_slots = table, num_slots


class Sha256Set:
    """A set of SHA-256 digests in hex, known by their first 16 bytes."""

    def __init__(self) -> None:
        self._digests = DigestSet()

    def add(self, sha256: str) -> bool:
        """Add a digest. Return True if it was not in the set before."""
        return self._digests.add(bytes.fromhex(sha256[: 2 * DIGEST_BYTES]))

    def __contains__(self, sha256: str) -> bool:
        return bytes.fromhex(sha256[: 2 * DIGEST_BYTES]) in self._digests

    def __len__(self) -> int:
        return len(self._digests)


class IdSet(AbstractSet[str]):
    """A set of clip ids, which is compact for millions of them.

    Args:
        ids: texts of 32 hex digits.
    """

    def __init__(self, ids: Iterable[str] = ()) -> None:
        self._digests = DigestSet()
        for one in ids:
            self.add(one)

    def add(self, clip_id: str) -> bool:
        """Add an id. Return True if it was not in the set before."""
        return self._digests.add(bytes.fromhex(clip_id))

    def __contains__(self, clip_id: object) -> bool:
        """Return True for an id in the set; False for any other text."""
        if not isinstance(clip_id, str):
            return False
        try:
            digest = bytes.fromhex(clip_id)
        except ValueError:
            return False
        return digest.hex() == clip_id and digest in self._digests

    def __iter__(self) -> Iterator[str]:
        return (digest.hex() for digest in self._digests)

    def __len__(self) -> int:
        return len(self._digests)
