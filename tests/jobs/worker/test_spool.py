"""Encoded clips on this machine's disk, and their fate when a worker or the disk fails."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import DiskFullError, SpoolError
from jobs.records.schema import ClipRecord
from jobs.worker.spool import CLIP_FILE, RECORD_FILE, Spool, old_spools, spool_root
from tests.builders.records import record_of
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

ONE = spec("circle")
BODY = b"an mp4"


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
def test_a_spool_that_others_may_write_to_is_refused(spool: Spool, level: str) -> None:
    keep(spool)
    (spool.folder if level == "output" else spool.folder.parent).chmod(0o777)
    for use in (lambda: spool.find(ONE), spool.clip_ids, lambda: keep(spool)):
        with pytest.raises(SpoolError, match=r"remove it, or set workers\.spool_folder"):
            use()


def test_a_spool_behind_a_link_is_refused(spool: Spool, tmp_path: Path) -> None:
    (tmp_path / "spool").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(SpoolError):
        spool.find(ONE)


def test_a_spool_is_in_the_configured_folder_or_in_a_folder_of_the_user(tmp_path: Path) -> None:
    assert spool_root(str(tmp_path)) == tmp_path
    assert spool_root(None).name == f"nagfarm-spool-{os.getuid()}"


def test_old_spools_are_those_without_a_recent_change(spool: Spool, tmp_path: Path) -> None:
    keep(spool)
    kept = spool.folder / ONE.clip_id
    os.utime(kept, (1_000, 1_000))
    assert list(old_spools(tmp_path / "spool", 100, now=1_101)) == [kept]
    assert not list(old_spools(tmp_path / "spool", 100, now=1_099))
