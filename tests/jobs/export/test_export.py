"""Exported clips: every name a file, nothing replaced, no link followed, nothing outside."""

import errno
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.local.s3_server import LocalS3
from jobs.cli.main import main
from jobs.export.copying import Exported, ExportParams, export_clips
from jobs.export.file_names import safe_name
from jobs.export.target_folder import TargetFolder
from jobs.records.keys import record_key
from jobs.records.names import record_names
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.records import commit
from tests.builders.specs import spec
from tests.fakes.store import MemoryStore

HERO = replace(spec("circle"), name="hero")
SQUARE = replace(spec("square"), name="square")


class CountingStore(MemoryStore):
    num_mp4s = 0

    def chunks(self, key: str) -> Iterator[bytes]:
        self.num_mp4s += key.endswith(".mp4")
        return super().chunks(key)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "clips"


def export(store: Store, folder: Path, **params: Any) -> list[Exported]:
    with TargetFolder(folder) as target:
        return list(export_clips(store, target, ExportParams(**params)))


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def rename(store: MemoryStore, clip_id: str, name: str) -> None:
    """Write a record with a name that no manifest can have."""
    record = ClipRecord.from_json(store.get(record_key(clip_id)))
    store.put(record_key(clip_id), replace(record, name=name).to_json(), "application/json")


def test_each_name_of_each_clip_is_a_file(folder: Path) -> None:
    store = CountingStore()
    commit(store, HERO, b"hero's video")
    commit(store, SQUARE, b"square's video")
    record_names(store, [replace(HERO, name="second-name")])
    found = export(store, folder)
    assert {one.outcome for one in found} == {"copied"}
    assert files(folder) == {
        "hero.mp4": b"hero's video",
        "second-name.mp4": b"hero's video",
        "square.mp4": b"square's video",
    }
    store.num_mp4s = 0
    (folder / "square.mp4").unlink()
    assert sorted(one.outcome for one in export(store, folder)) == ["copied", "there", "there"]
    assert store.num_mp4s == 1, "what is there is not read again"


def test_records_stand_beside_their_clips(folder: Path) -> None:
    store = MemoryStore()
    commit(store, HERO)
    for _ in range(2):
        export(store, folder, has_records=True)
        assert list(files(folder)) == ["hero.json", "hero.mp4"]
        assert (folder / "hero.json").read_bytes() == store.get(record_key(HERO.clip_id))


@pytest.mark.parametrize("names", [("hero", "hero"), ("hero", "Hero")])
def test_two_clips_of_one_name_get_two_files(folder: Path, names: tuple[str, str]) -> None:
    store = MemoryStore()
    specs = sorted(
        (replace(spec(prompt), name=name) for prompt, name in zip("ab", names, strict=True)),
        key=lambda one: one.clip_id,
    )
    for one in specs:
        commit(store, one, one.clip_id.encode())  # size and time are the same
        export(store, folder)
    first, second = specs
    expected = {
        f"{first.name}.mp4": first.clip_id.encode(),
        f"{second.name}-{second.clip_id}.mp4": second.clip_id.encode(),
    }
    for checks in (False, True):
        export(store, folder, checks=checks)
        assert files(folder) == expected


def test_a_clip_keeps_its_file_when_another_one_of_its_name_is_committed(folder: Path) -> None:
    first, second = sorted((spec("a"), spec("b")), key=lambda one: one.clip_id)
    store = MemoryStore()
    commit(store, replace(second, name="hero"), b"the later id, committed first")
    export(store, folder)
    commit(store, replace(first, name="hero"), b"the earlier id")
    assert sorted(one.outcome for one in export(store, folder)) == ["copied", "there"]
    assert files(folder) == {
        "hero.mp4": b"the later id, committed first",
        f"hero-{first.clip_id}.mp4": b"the earlier id",
    }


def test_another_file_stays_and_the_clip_gets_a_name_with_its_id(folder: Path) -> None:
    store = MemoryStore()
    commit(store, HERO, b"video")
    folder.mkdir()
    (folder / "hero.mp4").write_bytes(b"VIDEO")  # as long
    (one,) = export(store, folder)
    assert (one.outcome, one.message) == ("copied", f"hero is {one.file}")
    assert files(folder) == {"hero.mp4": b"VIDEO", f"hero-{HERO.clip_id}.mp4": b"video"}


def test_two_exports_at_once_make_one_file(folder: Path) -> None:
    class OtherExport(MemoryStore):
        """A store in which another export copies a clip while this one reads it."""

        def chunks(self, key: str) -> Iterator[bytes]:
            yield from super().chunks(key)
            if key.endswith(".mp4"):
                (folder / "hero.mp4").write_bytes(b"video")

    store = OtherExport()
    commit(store, HERO, b"video")
    assert [one.outcome for one in export(store, folder)] == ["there"]
    assert files(folder) == {"hero.mp4": b"video"}


def test_a_file_that_may_not_be_read_is_another_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("jobs.export.target_folder.read_file", refuse)
    store = MemoryStore()
    commit(store, HERO, b"video")
    folder.mkdir()
    (folder / "hero.mp4").write_bytes(b"VIDEO")
    assert [one.file for one in export(store, folder)] == [f"hero-{HERO.clip_id}.mp4"]


def test_a_file_in_the_place_of_a_record_stays_with_a_remark(folder: Path) -> None:
    store = MemoryStore()
    commit(store, HERO)
    folder.mkdir()
    (folder / "hero.json").write_text("{}")
    (one,) = export(store, folder, has_records=True)
    assert one.message == "hero.json is another file, and stays"


def test_a_file_that_was_copied_by_other_means_is_read_and_kept(folder: Path) -> None:
    store = CountingStore()
    commit(store, HERO, b"video")
    folder.mkdir()
    (folder / "hero.mp4").write_bytes(b"video")
    assert [one.outcome for one in export(store, folder)] == ["there"]
    assert store.num_mp4s == 0


def test_check_finds_a_file_that_was_damaged_since(folder: Path) -> None:
    store = MemoryStore()
    commit(store, HERO, b"video")
    export(store, folder)
    times = (folder / "hero.mp4").stat()
    (folder / "hero.mp4").write_bytes(b"VIDEO")
    os.utime(folder / "hero.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert [one.outcome for one in export(store, folder)] == ["there"]
    assert [one.outcome for one in export(store, folder, checks=True)] == ["copied"]
    assert (folder / f"hero-{HERO.clip_id}.mp4").read_bytes() == b"video"


@pytest.mark.parametrize("name", ["hero.mp4", f"hero-{HERO.clip_id}.mp4"])
@pytest.mark.parametrize("is_dangling", [True, False])
def test_no_link_is_followed(folder: Path, tmp_path: Path, name: str, *, is_dangling: bool) -> None:
    store = MemoryStore()
    commit(store, HERO, b"video")
    folder.mkdir()
    outside = tmp_path / "outside"
    if not is_dangling:
        outside.write_bytes(b"video")
    for taken in {"hero.mp4", name}:
        (folder / taken).symlink_to(outside)
    export(store, folder)
    assert outside.exists() is not is_dangling
    assert all((folder / taken).is_symlink() for taken in {"hero.mp4", name})


STRANGE = [
    "../../outside", "/etc/passwd", "a/b", "..", ".", "", ".hidden", "-rf", "a\x00b", "a\nb",
    "x" * 500, "\x1b[2J", "con|rm *", "ü", "\ud800", "a.mp4", "*", "~", "$HOME", "\u202eabc",
]  # fmt: skip


@pytest.mark.parametrize("name", STRANGE)
def test_a_strangers_name_never_leaves_the_folder(tmp_path: Path, name: str) -> None:
    store = MemoryStore()
    commit(store, HERO, b"video")
    rename(store, HERO.clip_id, name)
    folder = tmp_path / "a" / "b" / "clips"
    (one,) = export(store, folder)
    assert one.outcome == "copied"
    assert list(files(folder)) == [one.file]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [folder / one.file]


@given(st.text())
def test_every_name_has_a_safe_file_name(name: str) -> None:
    found = safe_name(name)
    assert 1 <= len(found) <= 128
    assert found.isascii()
    assert not set(found) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert found[0] not in ".-"


def test_clips_that_cannot_be_read_are_named_and_stop_no_other(folder: Path) -> None:
    store = MemoryStore()
    specs = [replace(spec(prompt), name=prompt) for prompt in ("good", "gone", "damaged", "torn")]
    records = {one.name: commit(store, one, one.name.encode()) for one in specs}
    store.delete(records["gone"].key)
    store.put(records["damaged"].key, b"DAMAGED", "video/mp4")
    store.put(record_key(records["torn"].clip_id), b"{", "application/json")
    found = {one.clip_id: one for one in export(store, folder)}
    assert {found[record.clip_id].outcome for record in records.values()} == {"copied", "failed"}
    assert files(folder) == {"good.mp4": b"good"}
    assert "does not exist" in found[records["gone"].clip_id].message
    assert "other bytes than its record says" in found[records["damaged"].clip_id].message
    assert record_key(records["torn"].clip_id) in found[records["torn"].clip_id].message


def test_what_a_killed_export_left_is_removed_a_day_later(folder: Path) -> None:
    folder.mkdir()
    old, young = (folder / f".nagfarm-{digit * 16}.partial" for digit in "01")
    for path in (old, young, folder / "mine.partial"):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    os.utime(folder / "mine.partial", (1, 1))
    with TargetFolder(folder) as target:
        target.remove_abandoned()
    assert list(files(folder)) == [young.name, "mine.partial"]


def test_a_file_system_without_hard_links_will_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store = MemoryStore()
    commit(store, HERO, b"video")
    folder.mkdir()
    (folder / "hero.mp4").write_bytes(b"another file")
    for outcome in ("copied", "there"):
        assert [one.outcome for one in export(store, folder)] == [outcome]
        assert files(folder) == {
            "hero.mp4": b"another file",
            f"hero-{HERO.clip_id}.mp4": b"video",
        }


def test_records_are_read_little_by_little(folder: Path) -> None:
    store = CountingStore()
    for number in range(200):
        commit(store, spec("clip", number))
    with TargetFolder(folder) as target:
        results = export_clips(store, target, ExportParams())
        next(results)
        assert store.num_mp4s < 60
        assert sum(1 for _ in results) == 199


@pytest.fixture
def output(tmp_path: Path) -> str:
    output = (tmp_path / "out").as_uri()
    commit(open_store(output, StoreConfig()), HERO, b"video")
    return output


def test_the_command_copies_and_resumes(
    output: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", output, str(folder), "--records"]) == 0
    assert f"copied 1 file, 0.0 MB: {folder}" in capsys.readouterr().out
    assert json.loads((folder / "hero.json").read_text())["name"] == "hero"
    assert main(["export", output, folder.as_uri(), "store.max_attempts=1", "--check"]) == 0
    assert f"copied 0 files, 0.0 MB, 1 were there: {folder}" in capsys.readouterr().out


def test_clips_are_copied_from_s3(s3_environment: LocalS3, folder: Path) -> None:
    store = open_store(f"s3://renders/export-{secrets.token_hex(4)}", StoreConfig())
    commit(store, HERO, b"hero's video")
    commit(store, SQUARE, b"square's video")
    record_names(store, [replace(SQUARE, name="second-name")])
    for outcome in ("copied", "there"):
        assert [one.outcome for one in export(store, folder, has_records=True)] == [outcome] * 3
        assert list(files(folder)) == [
            f"{name}.{suffix}"
            for name in ("hero", "second-name", "square")
            for suffix in ("json", "mp4")
        ]


def test_the_command_ends_with_3_if_a_clip_could_not_be_copied(
    output: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(output, StoreConfig())
    record = ClipRecord.from_json(store.get(record_key(HERO.clip_id)))
    store.delete(record.key)
    assert main(["export", output, str(folder)]) == 3
    printed = capsys.readouterr().out
    assert f"not copied: hero: {record.key}: " in printed
    assert "1 failed" in printed


def test_the_command_refuses_what_cannot_be_right(
    output: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for uri, folder, message in (
        (output, str(tmp_path / "out" / "clips"), "is inside of file://"),
        (output, str(tmp_path / "file"), "expected a folder, this is a file"),
        (output, str(tmp_path / "file" / "below"), "cannot be made: Not a directory"),
        (output, "s3://renders/clips", "expected a folder on this machine"),
        ((tmp_path / "empty").as_uri(), str(tmp_path / "x"), "got no object of any run"),
        ((tmp_path / "none").as_uri(), str(tmp_path / "x"), "is not a folder on this machine"),
    ):
        assert main(["export", uri, folder]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_folder_that_cannot_be_written_to_stops_the_export(
    output: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> bool:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(TargetFolder, "publish", full)
    assert main(["export", output, str(folder)]) == 4
    message = capsys.readouterr().err
    assert f"stopped: {folder} cannot be written to: No space left on device" in message
    assert "run it again to go on" in message
    assert files(folder) == {}
