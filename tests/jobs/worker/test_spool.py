"""Encoded clips on this machine's disk, and their fate when a worker or the disk fails."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import DiskFullError, SpoolError
from jobs.failures import classify
from jobs.records.schema import ClipRecord
from jobs.worker.private_folder import spool_root
from jobs.worker.spool import CLIP_FILE, RECORD_FILE, Spool
from tests.builders.records import record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

ONE = spec("circle")
BODY = b"an mp4"
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", "s3://renders/spring")


def record(body: bytes = BODY) -> ClipRecord:
    return record_of(MemoryStore(), body, ONE.clip_id)


def keep(spool: Spool, body: bytes = BODY) -> ClipRecord:
    kept = record(body)
    with spool.room() as folder:
        (folder / CLIP_FILE).write_bytes(body)
        spool.keep(folder, kept)
    return kept


def test_another_worker_finds_a_kept_clip_until_it_is_removed(spool: Spool, tmp_path: Path) -> None:
    kept = keep(spool)
    other = Spool(tmp_path / "spool", "s3://renders/spring")
    found = other.find(ONE)
    assert found is not None
    assert (found.record, found.body) == (kept, BODY)
    assert other.clip_ids() == {ONE.clip_id}
    other.remove(ONE.clip_id)
    assert spool.find(ONE) is None
    assert not spool.clip_ids()


def test_spools_of_two_outputs_do_not_mix(spool: Spool, tmp_path: Path) -> None:
    keep(spool)
    assert Spool(tmp_path / "spool", "s3://renders/autumn").find(ONE) is None


def test_the_clip_that_was_kept_first_stays(spool: Spool) -> None:
    keep(spool)
    keep(spool, b"another rendering")
    found = spool.find(ONE)
    assert found is not None
    assert found.body == BODY
    assert len(list(spool.folder.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / CLIP_FILE).write_bytes(b"cut"),
        lambda folder: (folder / RECORD_FILE).write_bytes(b"{}"),
        lambda folder: (folder / RECORD_FILE).write_bytes(record(b"other").to_json()),
        lambda folder: (folder / RECORD_FILE).write_bytes(
            replace(record(), request=spec("square").request).to_json()
        ),
    ],
    ids=["clip", "record", "of another clip", "of another request"],
)
def test_a_damaged_clip_is_not_used_and_is_removed(
    spool: Spool, damage: Callable[[Path], object]
) -> None:
    keep(spool)
    damage(spool.folder / ONE.clip_id)
    assert spool.find(ONE) is None
    assert not spool.clip_ids()


def test_a_clip_that_was_not_spooled_leaves_no_file(spool: Spool) -> None:
    with spool.room() as folder:
        (folder / CLIP_FILE).write_bytes(BODY)
    assert not list(spool.folder.iterdir())


def test_a_full_disk_is_a_retryable_error_with_a_remedy(spool: Spool) -> None:
    with (
        pytest.raises(DiskFullError, match=r"free some, or set workers\.spool_folder"),
        spool.room(),
    ):
        Path("/dev/full").write_bytes(bytes(1 << 16))  # the kernel's own full device


def test_other_users_cannot_read_a_spool(spool: Spool) -> None:
    keep(spool)
    assert spool.folder.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("level", ["root", "output"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_spool_that_others_may_write_to_is_refused(spool: Spool, level: str, mode: int) -> None:
    keep(spool)
    place = spool.folder if level == "output" else spool.folder.parent
    place.chmod(mode)
    for use in uses(spool):
        with pytest.raises(SpoolError, match=rf"{place} has the mode {mode:o}, expected 700: .*"):
            use()
    assert spool.remove(ONE.clip_id) is None
    place.chmod(0o700)
    assert spool.clip_ids() == {ONE.clip_id}


@pytest.mark.parametrize("level", ["root", "output"])
def test_a_spool_behind_a_link_is_refused_and_nothing_behind_it_is_touched(
    spool: Spool, tmp_path: Path, level: str
) -> None:
    home = tmp_path / "home"
    precious = home / spool.folder.name / ONE.clip_id if level == "root" else home / ONE.clip_id
    precious.mkdir(parents=True)
    (precious / CLIP_FILE).write_bytes(b"precious")
    (precious.parent / f".{'a' * 16}").mkdir()
    if level == "output":
        spool.folder.parent.mkdir(mode=0o700)
    (spool.folder if level == "output" else spool.folder.parent).symlink_to(home)
    for use in uses(spool):
        with pytest.raises(SpoolError, match="is a link or a file, no folder: remove it"):
            use()
    assert spool.remove(ONE.clip_id) is None
    assert (precious / CLIP_FILE).read_bytes() == b"precious"
    assert len(list(precious.parent.iterdir())) == 2


def uses(spool: Spool) -> list[Callable[[], object]]:
    return [
        lambda: spool.find(ONE),
        spool.clip_ids,
        lambda: spool.old_clip_ids(time.time() + 1),
        lambda: spool.remove_remains(time.time() + 1),
        lambda: spool.check_room(0),
        lambda: keep(spool),
    ]


@needs_root
def test_a_spool_of_another_user_is_refused_with_the_only_remedy(spool: Spool) -> None:
    keep(spool)
    os.chown(spool.folder.parent, NOBODY, NOBODY)
    for use in uses(spool):
        with pytest.raises(
            SpoolError, match=r"belongs to the user \w+: set workers\.spool_folder to a folder of"
        ):
            use()
    assert spool.remove(ONE.clip_id) is None


@needs_root
def test_a_squatter_who_lets_nobody_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as shared:
        Path(shared).chmod(0o1777)
        monkeypatch.setenv("TMPDIR", shared)
        squatted = Path(shared, f"nagfarm-spool-{NOBODY}")
        squatted.mkdir(mode=0o700)  # by root, who is the stranger here
        os.seteuid(NOBODY)
        try:
            assert spool_root(None) == squatted
            for use in uses(Spool(None, "s3://renders/spring")):
                with pytest.raises(SpoolError, match=r"belongs to the user root: set workers\."):
                    use()
        finally:
            os.seteuid(0)


def test_a_file_in_a_clips_folder_is_not_read_through_a_link(spool: Spool, tmp_path: Path) -> None:
    keep(spool)
    for name in (CLIP_FILE, RECORD_FILE):
        path = spool.folder / ONE.clip_id / name
        (tmp_path / name).write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(tmp_path / name)
    assert spool.find(ONE) is None
    assert not spool.clip_ids()
    assert (tmp_path / CLIP_FILE).read_bytes() == BODY


def test_a_pipe_in_a_clips_folder_is_not_waited_for(spool: Spool) -> None:
    keep(spool)
    path = spool.folder / ONE.clip_id / CLIP_FILE
    path.unlink()
    os.mkfifo(path)
    assert spool.find(ONE) is None
    assert not spool.clip_ids()


def test_only_names_that_a_worker_gives_are_removed(spool: Spool) -> None:
    keep(spool)
    kept = spool.folder / ONE.clip_id
    (kept / "thesis.tex").write_bytes(b"mine")
    (kept / "deep").mkdir()
    foreign = [spool.folder / ".ssh", spool.folder / "photos", spool.folder / f".{'A' * 16}"]
    for folder in foreign:
        folder.mkdir()
    spool.remove_remains(time.time() + 1)
    assert spool.remove(ONE.clip_id) is None
    assert {path.name for path in kept.iterdir()} == {"thesis.tex", "deep"}
    assert all(folder.is_dir() for folder in foreign)


def test_the_remains_of_a_killed_worker_are_removed_once_they_are_old(spool: Spool) -> None:
    with spool.room() as folder, tempfile.TemporaryDirectory(dir=folder, prefix=".clip-") as inner:
        Path(inner, "tags.txt").write_bytes(b"tags")
        Path(inner, CLIP_FILE).write_bytes(b"half")
        spool.remove_remains(time.time() - 60)
        assert Path(inner, CLIP_FILE).exists()
        spool.remove_remains(time.time() + 1)
        assert not list(spool.folder.iterdir())
        folder.mkdir()  # for the end of the blocks
        Path(inner).mkdir()


def test_a_spool_that_is_removed_while_a_clip_is_made_is_not_the_clips_fault(spool: Spool) -> None:
    with pytest.raises(SpoolError, match="was removed while a clip was written") as caught:
        keep_after(spool, lambda: shutil.rmtree(spool.folder.parent))
    assert classify(caught.value) == ("worker", True)
    assert keep(spool) == record()


def keep_after(spool: Spool, meanwhile: Callable[[], object]) -> None:
    with spool.room() as folder:
        meanwhile()
        (folder / CLIP_FILE).write_bytes(BODY)
        spool.keep(folder, record())


def test_a_spool_is_in_the_configured_folder(tmp_path: Path) -> None:
    assert spool_root(str(tmp_path)) == tmp_path


def test_a_spool_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert spool_root(None) == home / ".cache" / "nagfarm-spool"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    assert spool_root(None) == home / "cache" / "nagfarm-spool"
    kept_in = Spool(None, "s3://renders/spring")
    keep(kept_in)
    for folder in (home / "cache", spool_root(None), kept_in.folder):
        assert folder.stat().st_mode & 0o777 == 0o700
    assert spool_root(None) == home / "cache" / "nagfarm-spool"


@pytest.mark.parametrize("case", ["relative", "missing", "others may write", "a file"])
def test_without_a_private_cache_a_spool_is_among_the_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", "cache" if case == "relative" else str(cache))
    if case == "missing":
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "below" / "it"))
    if case == "others may write":
        cache.mkdir()
        cache.chmod(0o777)
    if case == "a file":
        cache.write_bytes(b"")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert spool_root(None) == tmp_path / f"nagfarm-spool-{os.geteuid()}"


def test_old_clips_are_those_without_a_recent_change(spool: Spool) -> None:
    assert not spool.old_clip_ids(2_000)
    keep(spool)
    os.utime(spool.folder / ONE.clip_id, (1_000, 1_000))
    (spool.folder / "photos").mkdir()
    os.utime(spool.folder / "photos", (1_000, 1_000))
    assert spool.old_clip_ids(1_001) == [ONE.clip_id]
    assert not spool.old_clip_ids(1_000)


def test_the_size_of_a_removed_clip_is_returned(spool: Spool) -> None:
    kept = keep(spool)
    assert spool.remove(ONE.clip_id) == len(BODY) + len(kept.to_json())
    assert spool.remove(ONE.clip_id) is None


def test_the_bytes_that_wait_are_those_of_whole_clips(spool: Spool) -> None:
    assert spool.num_bytes() == 0
    keep(spool)
    with spool.room() as folder:
        (folder / CLIP_FILE).write_bytes(b"half a clip")
        assert spool.num_bytes() == len(BODY)
    spool.remove(ONE.clip_id)
    assert spool.num_bytes() == 0
