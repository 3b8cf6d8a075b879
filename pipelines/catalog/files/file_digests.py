"""The SHA-256 of files of weights, computed once on a machine and kept in the user's cache.

Driver and workers share the cache. An entry holds for one file in one state: its path, device and
inode, size, and the times of its last change and of its last change of status, to the nanosecond.
The last of these cannot be set back, so that a file with other content and an old time is found. A
file that changed less than two seconds before it was hashed is hashed again the next time, since a
later change might bear the same time. A cache that is missing, damaged or another user's costs time
and nothing else. Loads without torch.
"""

import fcntl
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

from pipelines.private_folders import FILE_FLAGS, is_own_file, open_private_folder, user_folder
from pipelines.regular_files import open_regular_file

FOLDER_NAME = "nagfarm-digests"
MIN_CACHED_BYTES = 8 << 20  # a smaller file is hashed in less than it takes to look it up safely
# Both calls release Python's lock, and wait for it up to 5 ms while libraries are imported.
CHUNK_BYTES = 16 << 20
MAX_THREADS = 8
FRESH_NS = 2_000_000_000
MAX_ENTRIES = 4096
MAX_ENTRY_BYTES = 1000
LOCK_POLL_S = 0.05
SLOWEST_BYTES_S = 50_000_000  # another process that hashes the same file
_ENTRY_NAME = re.compile(r"[0-9a-f]{32}\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")

Advance = Callable[[int], None]
HashFile = Callable[[BufferedReader, Advance], bytes]


def _ignore(_num_bytes: int) -> None:
    pass


def hash_file(file: BufferedReader, advance: Advance = _ignore) -> bytes:
    """Return the SHA-256 of an open file, in chunks that leave Python's lock to other threads."""
    digest = hashlib.sha256()
    chunk = memoryview(bytearray(min(CHUNK_BYTES, os.fstat(file.fileno()).st_size + 1)))
    while count := file.readinto(chunk):
        digest.update(chunk[:count])
        advance(count)
    return digest.digest()


class DigestCache:
    """The digests of files on this machine, one small file each.

    Args:
        folder: the cache, which is made when it is missing; None to hash each file.
        hash_file: computes a digest that the cache lacks.
        now_ns: the clock of files' times, in nanoseconds since the epoch.
    """

    def __init__(
        self,
        folder: Path | None,
        hash_file: HashFile = hash_file,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._folder = folder
        self._hash_file = hash_file
        self._now_ns = now_ns

    def sha256(self, path: Path, advance: Advance = _ignore) -> bytes:
        """Return the SHA-256 of a regular file.

        If several processes ask for a file at once, one hashes it and the others wait for it.

        Args:
            path: the file.
            advance: receives the number of bytes whenever some are known.

        Raises:
            OSError: the file cannot be read or is not a regular one.
        """
        with open_regular_file(path) as file:
            status = os.fstat(file.fileno())
            if status.st_size < MIN_CACHED_BYTES:
                return self._hash_file(file, advance)
            with self._entry(path) as entry:
                found = None if entry is None else _read(entry, status)
                if entry is not None and found is None and _lock(entry, status.st_size, advance):
                    found = _read(entry, status)  # the process that held the lock wrote it
                    if found is None:
                        return self._hash_and_keep(file, status, entry, advance)
                if found is None:
                    return self._hash_file(file, advance)
            advance(status.st_size)
            return found

    def knows(self, path: Path) -> bool:
        """Return True if `sha256` need not read a large file.

        Raises:
            OSError: the file cannot be read or is not a regular one.
        """
        with open_regular_file(path) as file:
            status = os.fstat(file.fileno())
        if status.st_size < MIN_CACHED_BYTES:
            return True
        with self._entry(path) as entry:
            return entry is not None and _read(entry, status) is not None

    def _hash_and_keep(
        self, file: BufferedReader, before: os.stat_result, entry: int, advance: Advance
    ) -> bytes:
        last_change_ns = max(before.st_mtime_ns, before.st_ctime_ns)
        is_settled = self._now_ns() - last_change_ns >= FRESH_NS
        digest = self._hash_file(file, advance)
        if is_settled and _state(os.fstat(file.fileno())) == _state(before):
            content = json.dumps({"state": _state(before), "sha256": digest.hex()})
            with suppress(OSError):  # such as a full disk: half an entry is none
                os.ftruncate(entry, 0)
                os.pwrite(entry, content.encode(), 0)
        return digest

    @contextmanager
    def _entry(self, path: Path) -> Generator[int | None]:
        """Open the entry of a file, which may be empty; yield None if it cannot be trusted."""
        if self._folder is None:
            yield None
            return
        entry = None
        with suppress(OSError):  # such as a home that cannot be written
            self._folder.parent.mkdir(0o700, exist_ok=True)
        with suppress(OSError), open_private_folder(self._folder, makes=True) as folder:
            # By machine, since a home may be shared and a path mean another disk elsewhere.
            key = f"{os.uname().nodename}\0{path.absolute()}".encode("utf-8", "surrogateescape")
            name = f"{hashlib.sha256(key).hexdigest()[:32]}.json"
            entry = os.open(name, os.O_RDWR | os.O_CREAT | FILE_FLAGS, 0o600, dir_fd=folder)
            _remove_oldest(folder)
        try:
            yield entry if entry is not None and is_own_file(os.fstat(entry)) else None
        finally:
            if entry is not None:
                os.close(entry)  # and so gives the lock back


def sha256_of_all(paths: Sequence[Path], advance: Advance = _ignore) -> list[bytes]:
    """Return the SHA-256 of each file, several at a time.

    Args:
        paths: regular files.
        advance: receives the number of bytes whenever some are known, in any thread.

    Raises:
        OSError: a file cannot be read or is not a regular one.
    """
    cache = _users_cache()
    has_ended = threading.Event()

    def advance_or_end(num_bytes: int) -> None:
        if has_ended.is_set():  # by an interrupt, or since another file cannot be read
            raise InterruptedError("hashing has ended")
        advance(num_bytes)

    num_threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(num_threads, thread_name_prefix="hash") as threads:
        try:
            return list(threads.map(partial(cache.sha256, advance=advance_or_end), paths))
        except BaseException:
            has_ended.set()
            raise


def are_known(paths: Sequence[Path]) -> bool:
    """Return True if `sha256_of_all` need not read a large file.

    Raises:
        OSError: a file cannot be read or is not a regular one.
    """
    return all(map(_users_cache().knows, paths))


def _users_cache() -> DigestCache:
    folder = None
    with suppress(OSError):  # nothing can be written, not even temporary files
        folder = user_folder(FOLDER_NAME)
    return DigestCache(folder)


def _state(status: os.stat_result) -> list[int]:
    """Return the numbers that change with a file's content."""
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _read(entry: int, status: os.stat_result) -> bytes | None:
    """Return the digest that an entry holds for a file in this state, if any."""
    try:
        content: Any = json.loads(os.pread(entry, MAX_ENTRY_BYTES, 0))
        is_this = content["state"] == _state(status) and _SHA256.fullmatch(content["sha256"])
        return bytes.fromhex(content["sha256"]) if is_this else None
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return None


def _lock(entry: int, num_bytes: int, advance: Advance) -> bool:
    """Lock an entry, or return False if that takes longer than to hash the file.

    Args:
        num_bytes: size of the file.
        advance: called with 0 while it waits; it may raise an error to end that.
    """
    deadline_s = time.monotonic() + 1 + num_bytes / SLOWEST_BYTES_S
    while True:
        try:
            fcntl.flock(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                return False
            advance(0)
            time.sleep(LOCK_POLL_S)
        except OSError:  # the file system has no locks
            return False
        else:
            return True


def _remove_oldest(folder: int) -> None:
    """Remove the older half of the entries if there are too many."""
    names = [name for name in os.listdir(folder) if _ENTRY_NAME.fullmatch(name)]
    if len(names) <= MAX_ENTRIES:
        return
    written_at = {
        name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns for name in names
    }
    for name in sorted(names, key=written_at.__getitem__)[: MAX_ENTRIES // 2]:
        with suppress(FileNotFoundError):  # another process removes them too
            os.unlink(name, dir_fd=folder)
