"""Encoded clips on this machine's disk that are not in the store yet: what a worker leaves to the next one.

A clip is put here whole, its MP4 with its record, before it is uploaded, and removed when it is committed. So neither a
store that takes nothing nor the death of the worker costs a second rendering. How many wait is bounded by `schedule`,
which gives a worker no more clips while the store refuses those that it has.
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

CLIP_FILE, RECORD_FILE = "clip.mp4", "record.json"


@dataclass(frozen=True)
class SpooledClip:
    """A clip that is rendered, encoded and checked. Its record says nothing yet of the upload."""

    record: ClipRecord
    body: bytes


def spool_root(folder: str | None) -> Path:
    """Where this machine's spools are: as configured, or the user's own among the temporary files."""
    return (
        Path(folder)
        if folder is not None
        else Path(tempfile.gettempdir(), f"nagfarm-spool-{os.getuid()}")
    )


class Spool:
    """The clips of one output that wait on this machine.

    Args:
        root: see `spool_root`.
        output: URI of the store; spools of several never mix.
    """

    def __init__(self, root: Path, output: str) -> None:
        self.folder = root / hashlib.sha256(output.encode()).hexdigest()[:16]

    def check_room(self, num_bytes: int) -> None:
        """Asks before a clip is rendered whether it can be kept; afterwards it would be lost.

        Args:
            num_bytes: the most that it may take.

        Raises:
            DiskFullError: there is no space.
            SpoolError: somebody else made the folder, or may write to it.
        """
        self._make()
        check_free(self.folder, num_bytes)

    @contextmanager
    def room(self) -> Generator[Path]:
        """A folder in which a clip is made before `keep` takes it; removed afterwards.

        Raises:
            DiskFullError: there is no space, now or while the folder was written to.
            SpoolError: somebody else made the folder, or may write to it.
        """
        self._make()
        with disk_errors(self.folder):
            making = self.folder / f".{secrets.token_hex(8)}"
            making.mkdir(mode=0o700)
            try:
                yield making
            finally:
                shutil.rmtree(making, ignore_errors=True)

    def keep(self, making: Path, record: ClipRecord) -> None:
        """Takes over the folder of a finished clip, at once and whole. What another worker has kept stands."""
        with disk_errors(self.folder):
            write_synced(making / RECORD_FILE, record.to_json())
            try:
                making.rename(self.folder / record.clip_id)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise

    def remove_remains(self, older_than_s: float, now: float) -> None:
        """Removes what workers were making when they were killed.

        Args:
            now: seconds since the epoch.
        """
        for path in self.folder.glob(".*"):
            with suppress(FileNotFoundError):  # another worker of this machine does the same
                if now - path.lstat().st_mtime > older_than_s:
                    shutil.rmtree(path, ignore_errors=True)

    def _make(self) -> None:
        """Each folder by itself: `parents=True` would give the upper one the rights that the user's mask leaves."""
        with disk_errors(self.folder):
            self.folder.parent.parent.mkdir(parents=True, exist_ok=True)
            self.folder.parent.mkdir(mode=0o700, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
        self._refuse_strangers()

    def _refuse_strangers(self) -> None:
        """Others may write to the folder of temporary files; what they left there must not be taken for ours.

        Raises:
            SpoolError: somebody else made the folder, or may write to it.
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
                    f"the spool {folder} is not a folder that belongs to this user alone: remove it, or set "
                    "workers.spool_folder"
                )

    def find(self, clip_id: str) -> SpooledClip | None:
        """A clip that waits, if it is whole; what is damaged is removed.

        Raises:
            SpoolError: somebody else made the folder, or may write to it.
        """
        self._refuse_strangers()
        kept = self.folder / clip_id
        try:
            record = ClipRecord.from_json((kept / RECORD_FILE).read_bytes())
            body = (kept / CLIP_FILE).read_bytes()
        except FileNotFoundError:
            return None
        except (RecordError, OSError):  # OSError: the disk cannot read it any more
            self.remove(clip_id)
            return None
        if record.clip_id != clip_id or hashlib.sha256(body).hexdigest() != record.sha256:
            self.remove(clip_id)
            return None
        return SpooledClip(record, body)

    def holds(self, clip_id: str) -> bool:
        """Whether a clip waits here. Asks nothing else and raises nothing: the disk may be what has failed."""
        return os.path.exists(self.folder / clip_id)  # noqa: PTH110 Path.exists raises

    def remove(self, clip_id: str) -> None:
        shutil.rmtree(self.folder / clip_id, ignore_errors=True)

    def clip_ids(self) -> frozenset[str]:
        """Those that wait."""
        self._refuse_strangers()
        try:
            return frozenset(
                path.name for path in self.folder.iterdir() if CLIP_ID.fullmatch(path.name)
            )
        except FileNotFoundError:
            return frozenset()


def old_spools(root: Path, older_than_s: float, now: float) -> Iterator[Path]:
    """Folders of clips in any spool of this machine that nobody has touched for so long.

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
