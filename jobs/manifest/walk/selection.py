"""The rows of a walk: those that it reads, and those that `--only` and `--limit` ask for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

from jobs.errors import RefusedError
from jobs.manifest.walk.identifying import RowClip
from jobs.text import nearest, shown
from jobs.types import BrokenClip, ClipSpec

MAX_COMPARED = 10_000  # names that are compared with a wrong one


class Wanted(Protocol):
    """The rows that a walk reads. All others are passed over before they are parsed.

    Args:
        last: number of the last wanted row; None for the last one of the manifest.
    """

    @property
    def last(self) -> int | None: ...

    def __getitem__(self, index: int, /) -> int:
        """Return 1 if the row with this number, from 0, is wanted; 0 if not."""
        ...


class AllRows:
    """Every row of a manifest."""

    last: int | None = None

    def __getitem__(self, index: int, /) -> int:
        return 1


class MarkedRows:
    """The rows with a mark.

    Args:
        marks: a byte for each row from the first one on; 1 marks it.
    """

    def __init__(self, marks: bytes) -> None:
        self._marks = marks
        self.last: int | None = marks.rfind(1)

    def __getitem__(self, index: int, /) -> int:
        return self._marks[index] if index < len(self._marks) else 0


ALL_ROWS = AllRows()


class ManifestRow(NamedTuple):
    """One row, and the clip that it asks for.

    Args:
        number: number of the row, from 0.
        is_named: True if the row gives the name of the clip.
        is_random: True if the row asks for a random seed.
        is_repeat: True if an earlier row asks for the same clip.
    """

    number: int
    clip: RowClip | BrokenClip
    is_named: bool
    is_random: bool
    is_repeat: bool

    @property
    def spec(self) -> ClipSpec | BrokenClip:
        return self.clip if isinstance(self.clip, BrokenClip) else self.clip.spec()


@dataclass(frozen=True)
class Selection:
    """The clips of a manifest that a command is about.

    Args:
        only: names and ids of clips; empty for all.
        limit: number of clips from the first one on, at least 1; None for all.

    Raises:
        RefusedError: the limit is below 1.
    """

    only: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise RefusedError(f"--limit: expected a number of clips from 1 on, got {self.limit}")

    def __str__(self) -> str:
        """Return the options as they are written; empty without any."""
        only = f"--only with {len(self.only):,} names or ids" if self.only else ""
        limit = f"--limit {self.limit}" if self.limit else ""
        return " and ".join(filter(None, (only, limit)))

    def of(self, walk: Callable[[], Iterable[ManifestRow]], file: str) -> Iterator[ManifestRow]:
        """Yield the chosen rows of a walk over a manifest.

        Without `only`, rows behind the limit are not even read.

        Args:
            walk: begins a walk over all rows.
            file: the manifest, for the error.

        Raises:
            RefusedError: at the end, if no row has one of the names or ids.
        """
        rows = self._named(walk, file) if self.only else walk()
        if self.limit is None:
            yield from rows
            return
        num_clips = 0
        for row in rows:
            num_clips += not row.is_repeat
            if num_clips <= self.limit:
                yield row
            elif not self.only:
                return

    def _named(self, walk: Callable[[], Iterable[ManifestRow]], file: str) -> Iterator[ManifestRow]:
        wanted = frozenset(self.only)
        found, chosen = set[str](), set[str]()
        for row in walk():
            clip_id = row.clip.clip_id
            if words := wanted & {row.clip.name, clip_id}:
                found |= words
                is_repeat = clip_id in chosen
                yield ManifestRow(row.number, row.clip, row.is_named, row.is_random, is_repeat)
                chosen.add(clip_id)
        for word in self.only:
            if word not in found:
                names = (row.clip.name for row in islice(walk(), MAX_COMPARED))
                candidate = nearest(word, names)
                remedy = f"; did you mean {candidate!r}?" if candidate else ""
                raise RefusedError(
                    f"--only: {file} has no clip with the name or id {shown(word)}{remedy}"
                )


ALL = Selection()
