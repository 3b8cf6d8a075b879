"""Encoded clips on this machine's disk that wait for the store.

A whole clip, its MP4 with its record, is put here before the upload and removed when it is
committed. So neither an outage of the store nor the death of the worker costs a second rendering.
The schedule bounds the number of waiting clips: it gives a worker no more clips while the store
refuses the ones that it has.
"""

import errno
import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import RecordError, SpoolError
from jobs.failures import check_free, disk_errors
from jobs.records.keys import CLIP_ID
from jobs.records.schema import ClipRecord
from jobs.types import ClipSpec

CLIP_FILE, RECORD_FILE = "clip.mp4", "record.json"


@dataclass(frozen=True)
class SpooledClip:
    """An encoded and checked clip. Its record lacks the upload and has the time of encoding."""

    record: ClipRecord
    body: bytes


def spool_root(folder: str | None) -> Path:
    """Return the folder of all spools: the configured one, or the user's own temporary folder."""
    return (
        Path(folder)
        if folder is not None
        else Path(tempfile.gettempdir(), f"nagfarm-spool-{os.getuid()}")
    )


class Spool:
    """The clips of one output that wait on this machine.

    Args:
        root: folder of all spools, see `spool_root`.
        output: URI of the store; each output has its own spool.
    """

    def __init__(self, root: Path, output: str) -> None:
        self.folder = root / hashlib.sha256(output.encode()).hexdigest()[:16]

    def check_room(self, num_bytes: int) -> None:
        """Check before a clip is rendered that the disk can hold it; afterwards it would be lost.

        Args:
            num_bytes: largest size of the clip.

        Raises:
            DiskFullError: when the disk has too little space.
            SpoolError: when another user made the folder or may write to it.
        """
        self._make()
        check_free(self.folder, num_bytes)

    @contextmanager
    def room(self) -> Generator[Path]:
        """Yield a temporary folder for a clip that is being made, until `keep` takes it.

        Raises:
            DiskFullError: when the disk is full, now or while the folder is written to.
            SpoolError: when another user made the folder or may write to it.
        """
        self._make()
        with disk_errors(self.folder):
            temporary = self.folder / f".{secrets.token_hex(8)}"
            temporary.mkdir(mode=0o700)
            try:
                yield temporary
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def keep(self, temporary: Path, record: ClipRecord) -> None:
        """Take the folder of a finished clip with one rename.

        A clip that another worker has kept before stays.
        """
        with disk_errors(self.folder):
            write_synced(temporary / RECORD_FILE, record.to_json())
            try:
                temporary.rename(self.folder / record.clip_id)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    def remove_remains(self, older_than_s: float, now: float) -> None:
        """Remove temporary folders of workers that were killed.

        Args:
            now: seconds since the epoch.
        """
        for path in self.folder.glob(".*"):
            with suppress(FileNotFoundError):  # another worker of this machine does the same
                if now - path.lstat().st_mtime > older_than_s:
                    shutil.rmtree(path, ignore_errors=True)

    def _make(self) -> None:
        """Make the folders one by one.

        With `parents=True` the user's mask would decide the mode of the upper folder.
        """
        with disk_errors(self.folder):
            self.folder.parent.parent.mkdir(parents=True, exist_ok=True)
            self.folder.parent.mkdir(mode=0o700, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        self._refuse_strangers()

    def _refuse_strangers(self) -> None:
        """Refuse a spool that another user could have written.

        All users may write to the folder of temporary files.

        Raises:
            SpoolError: when another user made the folder or may write to it.
        """
        for folder in (self.folder.parent, self.folder):
            try:
                status = folder.lstat()
            except FileNotFoundError:
                continue
            is_ours = (
                stat.S_ISDIR(status.st_mode)
                and status.st_uid == os.getuid()
                and not status.st_mode & 0o022
            )
            if not is_ours:
                raise SpoolError(
                    f"the spool {folder} is not a folder that belongs to this user alone: "
                    "remove it, or set workers.spool_folder"
                )

    def find(self, spec: ClipSpec) -> SpooledClip | None:
        """Return a waiting clip, if it is whole; remove a damaged one or one of another request.

        Raises:
            SpoolError: when another user made the folder or may write to it.
        """
        self._refuse_strangers()
        kept = self.folder / spec.clip_id
        try:
            record = ClipRecord.from_json((kept / RECORD_FILE).read_bytes())
            body = (kept / CLIP_FILE).read_bytes()
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

    def holds(self, clip_id: str) -> bool:
        """Return True if a clip waits here; never raise, because the disk may have failed."""
        return os.path.exists(self.folder / clip_id)  # noqa: PTH110 Path.exists raises

    def remove(self, clip_id: str) -> None:
        shutil.rmtree(self.folder / clip_id, ignore_errors=True)

    def clip_ids(self) -> frozenset[str]:
        """Return the ids of the waiting clips."""
        self._refuse_strangers()
        try:
            return frozenset(
                path.name for path in self.folder.iterdir() if CLIP_ID.fullmatch(path.name)
            )
        except FileNotFoundError:
            return frozenset()


def old_spools(root: Path, older_than_s: float, now: float) -> Iterator[Path]:
    """Yield the folders of clips in all spools of this machine that have not changed for so long.

    Args:
        now: seconds since the epoch.
    """
    for path in sorted(root.glob("*/*")):
        if path.is_dir() and not path.is_symlink() and now - path.stat().st_mtime > older_than_s:
            yield path


def write_synced(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
