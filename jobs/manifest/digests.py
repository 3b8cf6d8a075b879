"""A set of 16-byte digests that a night's worth of rows fits into.

A Python set of `bytes` costs over 100 bytes an entry; here it is 16 bytes a slot, at most three quarters of the slots
taken, so that planning ten million clips stays within the memory of a laptop.
"""

DIGEST_BYTES = 16
_FREE = bytes(DIGEST_BYTES)  # no digest in practice: one in 2**128


class DigestSet:
    """Digests seen so far: an open-addressing table in one `bytearray`."""

    def __init__(self) -> None:
        self._num_slots = 1024
        self._table = bytearray(self._num_slots * DIGEST_BYTES)
        self._num_digests = 0

    def __len__(self) -> int:
        return self._num_digests

    def add(self, digest: bytes) -> bool:
        """Adds `digest` and says whether it is new."""
        if 4 * (self._num_digests + 1) > 3 * self._num_slots:
            self._grow()
        offset = self._offset_of(digest)
        if self._table.startswith(digest, offset):
            return False
        self._table[offset : offset + DIGEST_BYTES] = digest
        self._num_digests += 1
        return True

    def _offset_of(self, digest: bytes) -> int:
        """Where `digest` is, or the free slot where it belongs."""
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
