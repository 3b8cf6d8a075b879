"""A folder output that is lost in the middle: it is noticed by each operation, and never made anew.

Renaming the folder shows what unmounting does, without root; the tests with mounts need root.
"""

import errno
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import StoreRefusedError, StoreUnavailableError
from jobs.store.folder_root import MARK_FILE
from jobs.store.folder_store import FolderStore
from jobs.store.uri import FolderLocation

TEXT = "text/plain"
LOST = "is not the folder any more in which this output began: is its file system mounted?"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a file system")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "share"


@pytest.fixture
def store(path: Path) -> FolderStore:
    made = FolderStore(FolderLocation(path))
    made.put("records/a", b"x", TEXT)
    return made


def operations(store: FolderStore) -> list[Callable[[], object]]:
    return [
        lambda: store.put("clips/a", b"x", TEXT),
        lambda: store.put_if_absent("records/b", b"x", TEXT),
        lambda: store.get("records/a"),
        lambda: list(store.chunks("records/a")),
        lambda: store.exists("records/a"),
        lambda: store.delete("records/a"),
        lambda: list(store.keys("records/")),
        store.check_access,
        store.check_exists,
    ]


def assert_lost(store: FolderStore) -> None:
    for act in operations(store):
        with pytest.raises(StoreUnavailableError) as caught:
            act()
        assert LOST in str(caught.value)
        assert caught.value.may_pass_on_retry


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("left", ["nothing", "an empty folder", "another output", "a file"])
def test_a_lost_folder_is_an_outage_and_is_not_made_anew(
    store: FolderStore, path: Path, tmp_path: Path, left: str
) -> None:
    path.rename(tmp_path / "away")
    if left == "an empty folder":
        path.mkdir()
    if left == "another output":
        FolderStore(FolderLocation(path)).put("records/a", b"theirs", TEXT)
    if left == "a file":
        path.write_bytes(b"")
    before = names_in(tmp_path)
    assert_lost(store)
    assert_lost(pickle.loads(pickle.dumps(store)))
    assert names_in(tmp_path) == before
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    (tmp_path / "away").rename(path)
    for act in operations(store):
        act()


def test_a_folder_is_recognized_on_another_disk(store: FolderStore, path: Path) -> None:
    shutil.copytree(path, path.with_name("moved"))
    shutil.rmtree(path)
    path.with_name("moved").rename(path)
    assert store.get("records/a") == b"x"
    store.put("records/b", b"y", TEXT)


def test_an_output_without_a_mark_is_known_by_its_place(path: Path, tmp_path: Path) -> None:
    (path / "records").mkdir(parents=True)
    (path / "records" / "a").write_bytes(b"x")
    old = FolderStore(FolderLocation(path))
    assert list(old.keys("")) == ["records/a"]
    assert not (path / MARK_FILE).exists(), "looking leaves nothing behind"
    path.rename(tmp_path / "away")
    path.mkdir()
    assert_lost(old)
    path.rmdir()
    (tmp_path / "away").rename(path)
    old.put("records/b", b"y", TEXT)
    assert (path / MARK_FILE).exists()


def test_many_first_writers_agree_on_one_folder(path: Path) -> None:
    barrier = threading.Barrier(8)
    stores = [FolderStore(FolderLocation(path)) for _ in range(8)]

    def begin(number: int) -> None:
        assert not list(stores[number].keys(""))
        barrier.wait()
        stores[number].check_access()
        stores[number].put(f"records/{number}", b"x", TEXT)

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(8)))
        for number, one in enumerate(stores):
            assert one.get(f"records/{(number + 1) % 8}") == b"x"
        shutil.rmtree(path)
        stores = [FolderStore(FolderLocation(path)) for _ in range(8)]


def test_a_folder_that_is_removed_while_it_is_written_to_is_an_outage(
    store: FolderStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a missing object, which would be the clip's fault."""

    real = os.replace

    def replace(*arguments: Any, **folders: Any) -> None:
        shutil.rmtree(path / "clips")
        real(*arguments, **folders)

    with monkeypatch.context() as patch:
        patch.setattr("jobs.store.folder_files.os.replace", replace)
        with pytest.raises(StoreUnavailableError, match="a folder on the way was removed"):
            store.put("clips/a/b", b"x", TEXT)


def test_a_closed_folder_below_a_share_is_an_outage_and_has_no_clock(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def fail(*arguments: Any, **folder: Any) -> int:
        if not folder:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(*arguments, **folder)

    with monkeypatch.context() as patch:
        patch.setattr("jobs.store.folder_root.os.open", fail)
        for act in (*operations(store), store.now):
            with pytest.raises(StoreUnavailableError, match="not the folder any more"):
                act()


@pytest.mark.parametrize(
    "name",
    ["EIO", "ESTALE", "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ETIMEDOUT", "EROFS"],
)
def test_an_error_of_a_network_file_system_is_an_outage(
    store: FolderStore, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = getattr(errno, name)
    real = os.open

    def fail(*arguments: Any, **folder: Any) -> int:
        if not folder:
            raise OSError(number, os.strerror(number))
        return real(*arguments, **folder)

    with monkeypatch.context() as patch:
        patch.setattr("jobs.store.folder_root.os.open", fail)
        for act in operations(store):
            with pytest.raises(StoreUnavailableError, match=os.strerror(number)):
                act()
    assert store.get("records/a") == b"x"


@pytest.fixture
def mounted(path: Path) -> Iterator[Path]:
    """Mount a tmpfs, which is unmounted at the end if it still is there."""
    path.mkdir()
    mount("-t", "tmpfs", "none", path)
    yield path
    subprocess.run(["/bin/umount", "--lazy", path], check=False, capture_output=True)


def mount(*arguments: str | Path) -> None:
    subprocess.run(["/bin/mount", *arguments], check=True)


@needs_root
def test_a_read_only_file_system_is_an_outage(mounted: Path) -> None:
    store = FolderStore(FolderLocation(mounted / "out"))
    store.put("records/a", b"x", TEXT)
    mount("-o", "remount,ro", mounted)
    with pytest.raises(StoreUnavailableError, match="cannot write .* now: Read-only file system"):
        store.put("records/b", b"x", TEXT)
    assert store.exists("records/a")
    mount("-o", "remount,rw", mounted)
    store.put("records/b", b"x", TEXT)


@needs_root
def test_an_unmounted_share_is_an_outage_until_it_is_back(mounted: Path, tmp_path: Path) -> None:
    store = FolderStore(FolderLocation(mounted / "out"))
    store.put("records/a", b"x", TEXT)
    (tmp_path / "also here").mkdir()
    mount("--bind", mounted, tmp_path / "also here")
    listing = store.entries("records/")
    assert next(listing).key == "records/a"
    subprocess.run(["/bin/umount", "--lazy", mounted], check=True)
    assert not list(listing), "a listing that has begun goes on where it began"
    assert_lost(store)
    assert not list(mounted.iterdir())
    mount("--move", tmp_path / "also here", mounted)
    store.put("records/b", b"x", TEXT)
    assert list(store.keys("records/")) == ["records/a", "records/b"]


WRITER = """
import sys
from jobs.errors import StoreError
from jobs.store.folder_store import FolderStore
from jobs.store.uri import FolderLocation
from pathlib import Path
store = FolderStore(FolderLocation(Path(sys.argv[1])))
store.put("records/first", b"x", "text/plain")
print("ready", flush=True)
number = 0
while True:
    try:
        store.put(f"clips/{number % 100}/{number}", bytes(1000), "text/plain")
        store.put_if_absent(f"records/{number}", b"{}", "text/plain")
        print(number, flush=True)
    except StoreError as error:
        print(type(error).__name__, flush=True)
    number += 1
"""


@needs_root
def test_no_write_reaches_the_disk_below_a_share_that_comes_and_goes(
    mounted: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    mount("--bind", mounted, kept)
    try:
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, mounted / "out"], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            lines: list[str] = [writer.stdout.readline().strip()]
            for _ in range(10):
                lines += [writer.stdout.readline().strip() for _ in range(20)]
                subprocess.run(["/bin/umount", "--lazy", mounted], check=True)
                lines += [writer.stdout.readline().strip() for _ in range(20)]
                assert not list(mounted.iterdir()), "nothing is written below the share"
                mount("--bind", kept, mounted)
            writer.kill()
            lines += writer.stdout.read().split()
        assert set(lines) - {"ready"} - {line for line in lines if line.isdigit()} == {
            StoreUnavailableError.__name__
        }
        done = {f"records/{line}" for line in lines if line.isdigit()}
        assert done
        assert done <= set(FolderStore(FolderLocation(kept / "out")).keys(""))
    finally:
        subprocess.run(["/bin/umount", "--lazy", kept], check=True)


@pytest.mark.parametrize("below", ["", "x", "x/y"])
def test_an_output_whose_folder_is_a_file_has_no_list(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    store = FolderStore(FolderLocation(tmp_path / "file" / below))
    with pytest.raises(StoreRefusedError, match="a file is in the place of a folder"):
        list(store.entries("records/"))
