"""The cache of files' digests: when it is believed, and what it costs when it is not."""

import errno
import fcntl
import hashlib
import json
import os
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader
from pathlib import Path

import pytest

from pipelines.catalog.files import file_digests
from pipelines.catalog.files.file_digests import (
    MIN_CACHED_BYTES,
    Advance,
    DigestCache,
    hash_file,
    sha256_of_all,
)

SIZE = MIN_CACHED_BYTES


class Hashing:
    """Counts the files that are really hashed."""

    def __init__(self) -> None:
        self.num_files = 0

    def __call__(self, file: BufferedReader, advance: Advance) -> bytes:
        self.num_files += 1
        return hash_file(file, advance)


@pytest.fixture
def hashing() -> Hashing:
    return Hashing()


@pytest.fixture
def cache(tmp_path: Path, hashing: Hashing) -> DigestCache:
    return cache_of(tmp_path, hashing)


def cache_of(tmp_path: Path, hashing: Hashing, later_s: float = 10) -> DigestCache:
    """A cache by whose clock all files were written some seconds ago."""
    return DigestCache(
        tmp_path / "cache", hashing, lambda: time.time_ns() + int(later_s * 1_000_000_000)
    )


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    write(path, b"a")
    return path


def write(path: Path, start: bytes, size: int = SIZE) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(start)
        file.truncate(size)


def true_digest(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").glob("*.json"))


def test_a_large_file_is_hashed_once_for_all_processes_of_a_machine(
    tmp_path: Path, large: Path, hashing: Hashing
) -> None:
    known: list[int] = []
    for _ in range(3):
        digest = cache_of(tmp_path, hashing).sha256(large, known.append)
        assert digest == true_digest(large)
    assert hashing.num_files == 1
    assert sum(known) == 3 * SIZE
    assert entries(tmp_path)[0].stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_another_content_with_the_old_time_of_change_is_seen(
    large: Path, cache: DigestCache, hashing: Hashing
) -> None:
    cache.sha256(large)
    before = large.stat()
    write(large, b"b")
    os.utime(large, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = large.stat()
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        before.st_ino,
        before.st_size,
        before.st_mtime_ns,
    )
    assert cache.sha256(large) == true_digest(large)
    assert hashing.num_files == 2


def test_another_file_in_the_same_place_is_seen(
    tmp_path: Path, large: Path, cache: DigestCache
) -> None:
    cache.sha256(large)
    write(tmp_path / "other", b"b")
    (tmp_path / "other").replace(large)
    assert cache.sha256(large) == true_digest(large)


def test_a_file_that_has_just_changed_is_hashed_again(
    tmp_path: Path, large: Path, hashing: Hashing
) -> None:
    for _ in range(2):  # a third content could bear the same time
        cache_of(tmp_path, hashing, later_s=1).sha256(large)
    assert hashing.num_files == 2
    cache_of(tmp_path, hashing, later_s=-60).sha256(large)  # a clock that was set back
    cache_of(tmp_path, hashing).sha256(large)
    assert hashing.num_files == 4
    cache_of(tmp_path, hashing, later_s=1).sha256(large)
    assert hashing.num_files == 4


def test_a_file_that_changes_while_it_is_hashed_is_hashed_again(
    tmp_path: Path, large: Path, hashing: Hashing
) -> None:
    def hash_and_change(file: BufferedReader, advance: Advance) -> bytes:
        digest = hash_file(file, advance)
        write(large, b"b")
        return digest

    DigestCache(tmp_path / "cache", hash_and_change, lambda: 2 * time.time_ns()).sha256(large)
    assert cache_of(tmp_path, hashing).sha256(large) == true_digest(large)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[1]", b'{"state": 1, "sha256": 2}', b"[" * 900, b" " * 10_000_000],
)
def test_a_damaged_entry_costs_time_and_nothing_else(
    tmp_path: Path, large: Path, cache: DigestCache, hashing: Hashing, content: bytes
) -> None:
    cache.sha256(large)
    (entry,) = entries(tmp_path)
    entry.write_bytes(content)
    assert cache.sha256(large) == cache.sha256(large) == true_digest(large)
    assert hashing.num_files == 2
    assert entry.stat().st_size < 1000


@pytest.mark.parametrize("sha256", ["00", "0" * 63 + "g", 7, None])
def test_an_entry_without_a_digest_is_not_believed(
    tmp_path: Path, large: Path, cache: DigestCache, sha256: object
) -> None:
    cache.sha256(large)
    (entry,) = entries(tmp_path)
    entry.write_text(json.dumps({**json.loads(entry.read_text()), "sha256": sha256}))
    assert cache.sha256(large) == true_digest(large)


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_an_entry_that_is_not_an_own_file_is_left_alone(
    tmp_path: Path, large: Path, cache: DigestCache, hashing: Hashing, kind: str
) -> None:
    cache.sha256(large)
    (entry,) = entries(tmp_path)
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    entry.unlink()
    {
        "link": lambda: entry.symlink_to(mine),
        "second name": lambda: entry.hardlink_to(mine),
        "pipe": lambda: os.mkfifo(entry),
        "folder": entry.mkdir,
    }[kind]()
    assert cache.sha256(large) == cache.sha256(large) == true_digest(large)
    assert hashing.num_files == 3
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("kind", ["link", "others may write", "file", "no place"])
def test_a_cache_that_is_not_this_users_alone_is_not_used(
    tmp_path: Path, large: Path, cache: DigestCache, hashing: Hashing, kind: str
) -> None:
    folder, other = tmp_path / "cache", tmp_path / "other"
    other.mkdir()
    if kind == "link":
        folder.symlink_to(other)
    elif kind == "others may write":
        folder.mkdir()
        folder.chmod(0o777)
    elif kind == "file":
        folder.write_text("mine")
    else:
        cache = DigestCache(tmp_path / "not" / "here" / "cache", hashing)
    assert cache.sha256(large) == cache.sha256(large) == true_digest(large)
    assert hashing.num_files == 2
    assert not list(other.iterdir())
    assert not folder.is_dir() or not list(folder.iterdir())


def test_of_two_processes_one_hashes_a_file_and_the_other_waits_for_it(
    tmp_path: Path, large: Path, hashing: Hashing, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_hashing, is_waiting = threading.Event(), threading.Event()
    sleep = time.sleep

    def note_and_sleep(seconds: float) -> None:
        is_waiting.set()
        sleep(seconds)

    def hash_when_the_other_waits(file: BufferedReader, advance: Advance) -> bytes:
        is_hashing.set()
        assert is_waiting.wait(30)
        return hashing(file, advance)

    monkeypatch.setattr(file_digests.time, "sleep", note_and_sleep)
    first = DigestCache(tmp_path / "cache", hash_when_the_other_waits, lambda: 2 * time.time_ns())
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(first.sha256, large)
        assert is_hashing.wait(30)
        other = threads.submit(cache_of(tmp_path, hashing).sha256, large)
        assert one.result() == other.result() == true_digest(large)
    assert hashing.num_files == 1


def test_hashing_that_ends_waits_for_no_other_process(
    tmp_path: Path, large: Path, cache: DigestCache, hashing: Hashing
) -> None:
    def end(_num_bytes: int) -> None:
        raise InterruptedError

    cache.sha256(large)
    (entry,) = entries(tmp_path)
    entry.write_bytes(b"")
    with entry.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InterruptedError):
            cache.sha256(large, end)
    assert hashing.num_files == 1


def test_a_machine_on_which_nothing_can_be_written_costs_time_and_nothing_else(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    assert sha256_of_all([large]) == [true_digest(large)]


def test_the_cache_is_bounded(
    tmp_path: Path, cache: DigestCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_digests, "MAX_ENTRIES", 4)
    for number in range(9):
        write(path := tmp_path / f"{number}.safetensors", b"a")
        cache.sha256(path)
        assert len(entries(tmp_path)) <= 5
    (tmp_path / "cache" / "thesis.tex").write_text("mine")
    for number in range(9):
        cache.sha256(tmp_path / f"{number}.safetensors")
    assert (tmp_path / "cache" / "thesis.tex").exists()


def test_a_small_file_is_hashed_each_time(
    tmp_path: Path, cache: DigestCache, hashing: Hashing
) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    assert cache.sha256(path) == cache.sha256(path) == true_digest(path)
    assert hashing.num_files == 2
    assert not entries(tmp_path)


def test_many_files_are_hashed_together_and_in_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}" for number in range(20)]
    for number, path in enumerate(paths):
        path.write_bytes(b"a" * number)
    known: list[int] = []
    assert sha256_of_all(paths, known.append) == [true_digest(path) for path in paths]
    assert sum(known) == sum(range(20))


def test_a_file_that_cannot_be_read_ends_the_hashing_of_the_others(tmp_path: Path) -> None:
    paths = [tmp_path / "missing", *(tmp_path / f"{number}" for number in range(9))]
    for path in paths[1:]:
        path.write_bytes(b"a")
    with pytest.raises(FileNotFoundError):
        sha256_of_all(paths)
