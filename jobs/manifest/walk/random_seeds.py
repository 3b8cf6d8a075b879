"""The seeds of rows that ask for `seed: random`.

A seed is a hash of a salt, which the output keeps, and of the row. So it is drawn anew for each
output, and it is the same in each plan and each run of that output.

A row with a name is known by the name: it keeps its seed whatever else of it changes. A row without
a name is known by all that decides its pixels and by its number among the rows that are equal in
that. So it keeps its seed when other rows are inserted, moved or removed. Loads without torch.
"""

import hashlib

from jobs.digests import DigestSet, digest_of

# Every reader of JSON takes such a number, also one that stores it as a double.
SEED_BITS = 53


class RandomSeeds:
    """The random seeds of one walk over a manifest.

    Args:
        salt: random bytes, at most 64.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._seen = DigestSet()  # the numbers of each content that were given so far

    def of_name(self, name: str) -> int:
        return self._seed(f"name {name}")

    def of_content(self, clip_id: str) -> int:
        """Return the seed of the next row with this content.

        Args:
            clip_id: the id that the row has with the seed 0.
        """
        return self._seed(f"content {clip_id} {self._next_number(clip_id)}")

    def _seed(self, row: str) -> int:
        digest = hashlib.blake2b(row.encode(), digest_size=8, key=self._salt).digest()
        return int.from_bytes(digest) >> (64 - SEED_BITS)

    def _next_number(self, clip_id: str) -> int:
        """Return the first number that this content has not had yet, by bisection."""
        if self._seen.add(digest_of(f"{clip_id} 0")):
            return 0
        free = 1
        while digest_of(f"{clip_id} {free}") in self._seen:
            free *= 2
        taken = free // 2
        while free - taken > 1:
            middle = (free + taken) // 2
            if digest_of(f"{clip_id} {middle}") in self._seen:
                taken = middle
            else:
                free = middle
        self._seen.add(digest_of(f"{clip_id} {free}"))
        return free
