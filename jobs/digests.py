"""A compact set of 16-byte digests, for the ids and names of millions of clips.

A Python set of `bytes` takes over 100 bytes for each entry, and a set of 128-bit numbers 75 to 86
(measured with 160,000 to 10 million). This set takes 26 bytes for each of a million, so that a
laptop can plan ten million clips.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

DIGEST_BYTES = 16


def digest_of(text: str) -> bytes:
    """Return a digest of a text, as the set takes it."""
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES).digest()


class DigestSet:
    """The digests seen so far, one behind the other in buckets of those that begin alike."""

    def __init__(self) -> None:
        self._buckets = defaultdict[int, bytearray](bytearray)
        self._num_digests = 0

    def __len__(self) -> int:
        return self._num_digests

    def add(self, digest: bytes) -> bool:
        """Add `digest`. Return True if it was not in the set before."""
        bucket = self._buckets[_bucket_of(digest)]
        if _holds(bucket, digest):
            return False
        bucket += digest
        self._num_digests += 1
        return True

    def __contains__(self, digest: bytes) -> bool:
        bucket = self._buckets.get(_bucket_of(digest))
        return bucket is not None and _holds(bucket, digest)

    def __iter__(self) -> Iterator[bytes]:
        """Yield the digests in no promised order."""
        for bucket in self._buckets.values():
            for start in range(0, len(bucket), DIGEST_BYTES):
                yield bytes(bucket[start : start + DIGEST_BYTES])


def _bucket_of(digest: bytes) -> int:
    # 14 bits: a million digests are 1 KB a bucket, which is searched in less than 1 us
    return int.from_bytes(digest[:2]) >> 2


def _holds(bucket: bytearray, digest: bytes) -> bool:
    start = bucket.find(digest)
    while start > 0 and start % DIGEST_BYTES:  # the end of one digest and the head of the next
        start = bucket.find(digest, start + 1)
    return start >= 0


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
