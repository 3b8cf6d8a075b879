"""`nagfarm records`: which files it writes, which it refuses to replace, and its exit codes."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow.parquet import read_table

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, EXIT_REFUSED
from jobs.records.commit import JSON, write_failure
from jobs.records.keys import record_key
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.tables import files
from tests.builders.records import commit, failure_of
from tests.builders.specs import spec


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An output of three committed clips and one that failed, and an empty current folder."""
    (tmp_path / "out").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    store = open_store((tmp_path / "out").as_uri(), StoreConfig())
    for number in range(3):
        commit(store, spec(f"fox {number}"))
    write_failure(store, failure_of("f" * 32))
    return store


def called(capsys: pytest.CaptureFixture[str], *words: str, code: int = EXIT_OK) -> str:
    assert main(["records", *words]) == code
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_both_tables_are_written_into_this_folder_and_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "records.parquet: 4 clips; stages.parquet: 0 stages" in called(capsys, store.uri)
    commit(store, spec("new"))
    assert "records.parquet: 5 clips" in called(capsys, store.uri)
    assert sorted(path.name for path in Path().iterdir()) == ["records.parquet", "stages.parquet"]
    assert read_table("records.parquet").num_rows == 5


def test_the_output_may_be_a_new_folder_or_a_file(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    called(capsys, store.uri, "--to", "csv", "--output", "new/folder")
    called(capsys, store.uri, "--output", "spring.parquet")
    found = sorted(path.as_posix() for path in Path().rglob("*.*"))
    assert found == [
        "new/folder/records.csv", "new/folder/stages.csv", "spring-stages.parquet",
        "spring.parquet",
    ]  # fmt: skip


def test_the_options_choose_the_clips(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "1 clip;" in called(capsys, store.uri, "--state", "failed")
    assert read_table("records.parquet")["state"].to_pylist() == ["failed"]


@pytest.mark.parametrize("path", ["notes.parquet", "notes.csv"])
def test_a_file_that_holds_something_else_is_never_replaced(
    store: Store, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(path).write_text("my own notes")
    to = path.rpartition(".")[2]
    text = called(capsys, store.uri, "--to", to, "--output", path, code=EXIT_REFUSED)
    assert "holds something else than a table" in text
    assert Path(path).read_text() == "my own notes"


def test_a_file_of_another_format_and_the_output_itself_are_refused(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = called(capsys, store.uri, "--output", "spring.csv", code=EXIT_REFUSED)
    assert "for another format give --to parquet or --to csv" in text
    inside = str(tmp_path / "out" / "tables")
    assert "is inside of" in called(capsys, store.uri, "--output", inside, code=EXIT_REFUSED)
    assert not (tmp_path / "out" / "tables").exists()
    empty = str(tmp_path / "here")
    assert "expected the output of a run" in called(capsys, empty, code=EXIT_REFUSED)


def test_an_object_without_a_row_is_named_and_ends_with_3(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    large = replace(commit(store, spec("large")), peak_memory_bytes=2**63)
    store.put(record_key(large.clip_id), large.to_json(), JSON)
    store.put(record_key("0" * 32), b"{", JSON)
    text = called(capsys, store.uri, code=EXIT_FINDINGS)
    assert f"no row: records/{large.clip_id}.json: peak_memory_bytes must be at most" in text
    assert f"no row: records/{'0' * 32}.json: not valid JSON" in text
    assert read_table("records.parquet").num_rows == 4


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("a" * 300, "File name too long; name another place"),
        ("loop", "cannot write loop"),
        ("~no-such-user/x", "home directory"),
    ],
)
def test_a_path_that_no_file_can_have_is_refused_by_its_option(
    store: Store, path: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("loop").symlink_to("loop")
    text = called(capsys, store.uri, "--output", path, code=EXIT_REFUSED)
    assert "--output" in text
    assert message in text
    assert [one.name for one in Path().iterdir()] == ["loop"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_full_disk_leaves_nothing_and_the_remedy_is_space(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    opened: list[str] = []

    def full(path: Path, *_: object) -> object:
        opened.append(str(path))
        path.touch()
        if len(opened) == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return open_writer(path, *_)

    open_writer: Any = files._open_writer
    monkeypatch.setattr(files, "_open_writer", full)
    text = called(capsys, store.uri, code=EXIT_REFUSED)
    assert "No space left on device; free space there" in text
    assert list(Path().iterdir()) == []
