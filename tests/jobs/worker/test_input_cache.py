"""The images and videos that a machine keeps: whole, private, bounded."""

import hashlib
import os
import threading
from pathlib import Path

import pytest

from jobs.worker.input_cache import InputCache


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Source:
    """Counts the bytes that are fetched."""

    def __init__(self) -> None:
        self.fetched: list[bytes] = []

    def get(self, cache: InputCache, content: bytes) -> bytes:
        def fetch() -> bytes:
            self.fetched.append(content)
            return content

        return cache.get(digest(content), fetch)


@pytest.fixture
def source() -> Source:
    return Source()


def test_a_file_is_fetched_once_and_belongs_to_its_user(tmp_path: Path, source: Source) -> None:
    for _ in range(3):
        assert source.get(InputCache(str(tmp_path / "spool")), b"image") == b"image"
    assert source.fetched == [b"image"]
    (kept,) = (tmp_path / "spool" / "inputs").iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [b"imagx", b"", b"image and more"])
def test_a_damaged_file_is_fetched_again(damage: bytes, tmp_path: Path, source: Source) -> None:
    cache = InputCache(str(tmp_path))
    source.get(cache, b"image")
    (tmp_path / "inputs" / digest(b"image")).write_bytes(damage)
    assert source.get(cache, b"image") == b"image"
    assert source.get(cache, b"image") == b"image"
    assert source.fetched == [b"image"] * 2


def test_the_files_that_were_used_longest_ago_are_removed(tmp_path: Path, source: Source) -> None:
    cache = InputCache(str(tmp_path), max_bytes=100)
    files = [bytes([number]) * 40 for number in range(3)]
    for number, content in enumerate(files[:2]):
        source.get(cache, content)
        os.utime(tmp_path / "inputs" / digest(content), (number, number))
    source.get(cache, files[0])  # so the second one is now the oldest
    source.get(cache, files[2])
    names = {path.name for path in (tmp_path / "inputs").iterdir()}
    assert names == {digest(files[0]), digest(files[2])}


def test_a_file_that_a_dead_worker_left_half_written_is_removed(
    tmp_path: Path, source: Source
) -> None:
    cache = InputCache(str(tmp_path))
    source.get(cache, b"a")
    old, young = tmp_path / "inputs" / ".0123", tmp_path / "inputs" / ".4567"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    source.get(cache, b"b")
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("kind", ["link", "file", "others may write"])
def test_a_folder_that_cannot_be_trusted_is_left_alone(
    kind: str, tmp_path: Path, source: Source
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    match kind:
        case "link":
            (tmp_path / "inputs").symlink_to(elsewhere)
        case "file":
            (tmp_path / "inputs").write_text("in the way")
        case _:
            (tmp_path / "inputs").mkdir()
            (tmp_path / "inputs").chmod(0o777)
    for _ in range(2):
        assert source.get(InputCache(str(tmp_path)), b"image") == b"image"
    assert source.fetched == [b"image"] * 2
    assert not list(elsewhere.iterdir())


def test_a_link_in_the_place_of_a_file_is_not_read(tmp_path: Path, source: Source) -> None:
    cache = InputCache(str(tmp_path))
    source.get(cache, b"other")
    (tmp_path / "secret").write_bytes(b"image")
    (tmp_path / "inputs" / digest(b"image")).symlink_to(tmp_path / "secret")
    assert source.get(cache, b"image") == b"image"
    assert source.fetched == [b"other", b"image"]


def test_several_workers_share_the_cache(tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(8)]
    wrong: list[bytes] = []

    def work() -> None:
        cache = InputCache(str(tmp_path), max_bytes=5000)
        for _ in range(5):
            wrong.extend(
                one for one in contents if cache.get(digest(one), lambda one=one: one) != one
            )

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    sizes = [path.stat().st_size for path in (tmp_path / "inputs").iterdir()]
    assert sum(sizes) <= 5000
    assert {*sizes} == {1000}
