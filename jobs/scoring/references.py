"""The reference pictures of a set's measure: found in a folder, and read in pieces for workers.

A folder's pictures come from strangers: regular files alone, no links out of the folder, in bounded
bytes. The driver reads them, so that workers need not see the folder.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from jobs.errors import RefusedError
from jobs.media.input_images import MAX_IMAGE_BYTES
from jobs.scoring.tasks import PicturesTask
from pipelines.regular_files import read_bounded

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_PICTURES = 1_000_000
BATCH_PICTURES = 16
BATCH_BYTES = 64_000_000


@dataclass(frozen=True)
class References:
    """The pictures of a folder and of its folders, by name."""

    folder: Path
    paths: tuple[Path, ...] = field(repr=False)

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the name and the bytes of each picture.

        Raises:
            RefusedError: a file cannot be read, or is too large.
        """
        for path in self.paths:
            try:
                content = read_bounded(path, MAX_IMAGE_BYTES)
            except OSError as error:
                raise RefusedError(
                    f"--references: {path} cannot be read: {error.strerror}"
                ) from error
            yield path.relative_to(self.folder).as_posix(), content

    def tasks(self, measure: str) -> Iterator[PicturesTask]:
        """Yield the pictures in pieces, read when they are wanted. Raises as `files`."""
        batch: list[tuple[str, bytes]] = []
        num_bytes = 0
        for name, content in self.files():
            batch.append((name, content))
            num_bytes += len(content)
            if len(batch) == BATCH_PICTURES or num_bytes >= BATCH_BYTES:
                yield PicturesTask(measure, tuple(batch))
                batch, num_bytes = [], 0
        if batch:
            yield PicturesTask(measure, tuple(batch))


def find_references(folder: Path) -> References:
    """Find the pictures of a folder.

    Raises:
        RefusedError: it is not a folder, or holds fewer than two pictures, or too many.
    """
    if not folder.is_dir():
        raise RefusedError(f"--references: {folder} is not a folder")
    try:
        paths = sorted(
            path
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.is_symlink() and path.is_file()
        )
    except OSError as error:
        raise RefusedError(f"--references: {folder} cannot be read: {error.strerror}") from error
    if not 2 <= len(paths) <= MAX_PICTURES:
        raise RefusedError(
            f"--references: expected 2 to {MAX_PICTURES:,} pictures ({', '.join(SUFFIXES)}) in "
            f"{folder}, found {len(paths):,}"
        )
    return References(folder, tuple(paths))
