"""Encoded clips on this machine's disk that wait for the store.

A whole clip, its MP4 with its record, is put here before the upload and removed when it is
committed. So neither an outage of the store nor the death of the worker costs a second rendering.
The schedule bounds the number of waiting clips: it gives a worker no more clips while the store
refuses the ones that it has.

Nothing is written, read or removed but through `private_folder`, and nothing is removed but the
names that a worker gives.
"""

import errno
import hashlib
import os
import re
import secrets
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import JobError, RecordError, SpoolError
from jobs.failures import check_free, disk_errors
from jobs.media.posters import Posters
from jobs.records.keys import CLIP_ID
from jobs.records.schema import ClipRecord
from jobs.types import ClipSpec
from jobs.worker.private_folder import private_folder, read_private_file, spool_root

CLIP_FILE, RECORD_FILE = "clip.mp4", "record.json"
UNFINISHED = re.compile(r"\.[0-9a-f]{16}")  # the folder of a clip that is being made
# `encode_mp4` makes this folder and the file of tags beside the MP4, and removes both.
ENCODING, TAGS_FILE = re.compile(r"\.clip-[a-z0-9_]{8}"), "tags.txt"


@dataclass(frozen=True)
class SpooledClip:
    """An encoded and checked clip. Its record lacks the upload and has the time of encoding."""

    record: ClipRecord
    body: bytes
    posters: Posters | None = None  # the spool does not keep them


class Spool:
    """The clips of one output that wait on this machine.

    Each method but `holds` and `remove` raises SpoolError when the spool belongs to another user,
    or when another user may write to it.

    Args:
        root: `workers.spool_folder`, the folder of all spools; None takes the user's own.
        output: URI of the store; each output has its own spool.
    """

    def __init__(self, root: str | Path | None, output: str) -> None:
        self.folder = spool_root(root) / hashlib.sha256(output.encode()).hexdigest()[:16]

    def check_room(self, num_bytes: int) -> None:
        """Check before a clip is rendered that the disk can hold it; afterwards it would be lost.

        Args:
            num_bytes: largest size of the clip.

        Raises:
            DiskFullError: when the disk has too little space.
        """
        with self._opened(makes=True):
            check_free(self.folder, num_bytes)

    @contextmanager
    def room(self) -> Generator[Path]:
        """Yield a temporary folder for a clip that is being made, until `keep` takes it.

        Raises:
            DiskFullError: when the disk is full, now or while the folder is written to.
            SpoolError: also when the folder was removed meanwhile, which is not the clip's fault.
        """
        temporary = self.folder / f".{secrets.token_hex(8)}"
        with self._opened(makes=True) as folder:
            os.mkdir(temporary.name, 0o700, dir_fd=folder)
        try:
            with disk_errors(self.folder):
                yield temporary
        except (JobError, OSError) as error:
            if not os.path.lexists(temporary):
                raise SpoolError(
                    f"{temporary} was removed while a clip was written to it"
                ) from error
            raise
        finally:
            self.remove(temporary.name)

    def keep(self, temporary: Path, record: ClipRecord) -> None:
        """Take the folder of a finished clip with one rename.

        A clip that another worker has kept before stays.
        """
        with self._opened() as folder:
            with private_folder(temporary, folder) as made:
                _write_synced(RECORD_FILE, record.to_json(), made)
            try:
                os.rename(temporary.name, record.clip_id, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    def find(self, spec: ClipSpec) -> SpooledClip | None:
        """Return a waiting clip, if it is whole; remove a damaged one or one of another request."""
        try:
            with (
                self._opened() as folder,
                private_folder(self.folder / spec.clip_id, folder) as kept,
            ):
                record = ClipRecord.from_json(read_private_file(RECORD_FILE, kept))
                body = read_private_file(CLIP_FILE, kept)
        except FileNotFoundError:
            return None
        except (RecordError, OSError):  # OSError: the disk cannot read it any more
            self.remove(spec.clip_id)
            return None
        described = (record.clip_id, record.model, record.request)
        is_whole = hashlib.sha256(body).hexdigest() == record.sha256
        if not is_whole or described != (spec.clip_id, spec.model, spec.request):
            self.remove(spec.clip_id)
            return None
        return SpooledClip(record, body)

    def clip_ids(self) -> frozenset[str]:
        """Return the ids of the waiting clips."""
        return frozenset(name for name, _ in self._entries() if CLIP_ID.fullmatch(name))

    def num_bytes(self) -> int:
        """Return the bytes of the waiting clips; never raise, because the disk may have failed."""
        with suppress(OSError, JobError), self._opened() as folder:
            return sum(
                _size(folder, name) for name, _ in _listed(folder) if CLIP_ID.fullmatch(name)
            )
        return 0

    def old_clip_ids(self, changed_before: float) -> list[str]:
        """Return the ids of the clips that were last changed before a moment.

        Args:
            changed_before: seconds since the epoch, by this machine's clock.
        """
        return sorted(
            name
            for name, changed_at in self._entries()
            if CLIP_ID.fullmatch(name) and changed_at < changed_before
        )

    def holds(self, clip_id: str) -> bool:
        """Return True if a clip waits here; never raise, because the disk may have failed."""
        return os.path.exists(self.folder / clip_id)  # noqa: PTH110 Path.exists raises

    def remove(self, name: str) -> int | None:
        """Remove a clip that waits or is being made, if it can be removed.

        Returns:
            The size of the removed files in bytes; None if the clip is still there or was gone.
        """
        with suppress(OSError, JobError), self._opened() as folder:
            return _remove(self.folder / name, folder)
        return None

    def remove_remains(self, changed_before: float) -> None:
        """Remove temporary folders of killed workers that changed last before that time."""
        for name, changed_at in self._entries():
            if UNFINISHED.fullmatch(name) and changed_at < changed_before:
                self.remove(name)

    def _entries(self) -> list[tuple[str, float]]:
        """Return the names in the spool, each with the moment of its last change."""
        try:
            with self._opened() as folder:
                return list(_listed(folder))
        except FileNotFoundError:
            return []

    @contextmanager
    def _opened(self, *, makes: bool = False) -> Generator[int]:
        """Open the spool of this output and yield its descriptor.

        Raises:
            FileNotFoundError: it is missing.
        """
        root = self.folder.parent
        with _errors(self.folder):
            if makes:
                root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (
                private_folder(root, makes=makes) as above,
                private_folder(self.folder, above, makes=makes) as folder,
            ):
                yield folder


@contextmanager
def _errors(folder: Path) -> Generator[None]:
    """Turn the operating system's errors into those of a full disk and of the spool."""
    remedy = "set workers.spool_folder to a folder of this user"
    with disk_errors(folder):
        try:
            yield
        except PermissionError as error:
            raise SpoolError(
                f"cannot use the spool {folder}: {error.strerror}; {remedy}"
            ) from error


def _listed(folder: int) -> Iterator[tuple[str, float]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # another worker of this machine has removed it
                yield entry.name, entry.stat(follow_symlinks=False).st_mtime


def _size(folder: int, name: str) -> int:
    with suppress(FileNotFoundError):  # another worker of this machine has removed it
        return os.stat(f"{name}/{CLIP_FILE}", dir_fd=folder, follow_symlinks=False).st_size
    return 0


def _remove(path: Path, parent: int) -> int:
    """Remove a folder and the files in it that a worker gives their names; return their bytes.

    Raises:
        OSError: it also holds something else, which stays.
    """
    num_bytes = 0
    with private_folder(path, parent) as folder, os.scandir(folder) as entries:
        for entry in list(entries):
            if ENCODING.fullmatch(entry.name):
                num_bytes += _remove(path / entry.name, folder)
            elif entry.name in (CLIP_FILE, RECORD_FILE, TAGS_FILE):
                num_bytes += entry.stat(follow_symlinks=False).st_size
                os.unlink(entry.name, dir_fd=folder)
    os.rmdir(path.name, dir_fd=parent)
    return num_bytes


def _write_synced(name: str, content: bytes, folder: int) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
