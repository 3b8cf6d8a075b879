"""A compact set of 16-byte digests, for the ids and names of millions of clips.

A Python set of `bytes` takes over 100 bytes for each entry, and a set of 128-bit numbers 75 to 86
(measured with 160,000 to 10 million). This set takes 16 bytes for each slot and fills at most three
quarters of its slots, so that a laptop can plan ten million clips.
"""

import hashlib

DIGEST_BYTES = 16
_FREE = bytes(DIGEST_BYTES)  # marks a free slot; a digest equals it with probability 2**-128


def digest_of(text: str) -> bytes:
    """Return a digest of a text, as the set takes it."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


class DigestSet:
    """The digests seen so far, in an open-addressing hash table in one `bytearray`."""

    def __init__(self) -> None:
        self._num_slots = 1024
        self._table = bytearray(self._num_slots * DIGEST_BYTES)
        self._num_digests = 0

    def __len__(self) -> int:
        return self._num_digests

    def add(self, digest: bytes) -> bool:
        """Add `digest`. Return True if it was not in the set before."""
        if 4 * (self._num_digests + 1) > 3 * self._num_slots:
            self._grow()
        offset = self._offset_of(digest)
        if self._table.startswith(digest, offset):
            return False
        self._table[offset : offset + DIGEST_BYTES] = digest
        self._num_digests += 1
        return True

    def __contains__(self, digest: bytes) -> bool:
        return self._table.startswith(digest, self._offset_of(digest))

    def _offset_of(self, digest: bytes) -> int:
        """Return the offset of `digest`, or of the free slot where it belongs."""
        table = self._table
        size_bytes = len(table)
        offset = int.from_bytes(digest[:8], "little") % self._num_slots * DIGEST_BYTES
        while not (table.startswith(_FREE, offset) or table.startswith(digest, offset)):
            offset = (offset + DIGEST_BYTES) % size_bytes
        return offset

    def _grow(self) -> None:
        old = self._table
        self._num_slots *= 2
        self._table = bytearray(self._num_slots * DIGEST_BYTES)
        for start in range(0, len(old), DIGEST_BYTES):
            digest = bytes(old[start : start + DIGEST_BYTES])
            if digest != _FREE:
                offset = self._offset_of(digest)
                self._table[offset : offset + DIGEST_BYTES] = digest
