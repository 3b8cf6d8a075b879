"""Descriptions on their way from a cluster: packed, unpacked within limits, kept in the cache."""

import base64
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs.description import files as module
from jobs.description.files import (
    LINE_CHARACTERS,
    LINE_PREFIX,
    from_lines,
    pack,
    save_description,
    save_fetched,
    to_lines,
    unpack,
)
from jobs.errors import RefusedError
from pipelines.catalog.description import DescribedLora, Description
from pipelines.errors import ModelFolderError

CONTENTS = {"model_index.json": b"{}", "tokenizer/tokenizer.json": bytes(range(256)) * 40}
DESCRIPTION = Description(
    name="mine",
    family="wan",
    source="Org/Model",
    revision="c0ffee" * 6 + "c0ff",
    loras=(DescribedLora("style", "folder:style", "sha256:" + "a" * 32),),
    num_weight_bytes=5,
    files=dict.fromkeys(CONTENTS, "0" * 64),
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nagfarm-descriptions"


def packed(document: Any) -> bytes:
    return zlib.compress(json.dumps(document).encode())


def document_with(contents: Mapping[str, str], **values: Any) -> dict[str, Any]:
    whole = json.loads(zlib.decompress(pack(DESCRIPTION, CONTENTS)))
    return {"description": {**whole["description"], **values}, "contents": contents}


def test_a_description_comes_out_of_a_log_as_it_went_in() -> None:
    lines = list(to_lines(pack(DESCRIPTION, CONTENTS)))
    assert max(map(len, lines)) <= len(LINE_PREFIX) + LINE_CHARACTERS
    log = ["a warning", *(f"{line}\n" for line in lines[:1]), "another", *lines[1:]]
    read = from_lines(log)
    assert read is not None
    assert unpack(read) == (DESCRIPTION, CONTENTS)
    assert from_lines(["a warning"]) is None


NAMES = [
    "../../x", "tokenizer/../../x", "/x", "tokenizer/x/y", "unknown/x", "tokenizer/", "x",
    "tokenizer/\0", "tokenizer/\ud800", "tokenizer/\x1b[2J",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_packed_file_leads_out_of_its_folder(cache: Path, name: str) -> None:
    document = document_with({name: ""}, files={name: "0" * 64})
    with pytest.raises(ModelFolderError):
        save_fetched(packed(document), "mine")
    assert not cache.exists()


@pytest.mark.parametrize("name", ["../mine", "/mine", "a/b", 5, "\0", "\ud800", "a\nb"])
def test_no_name_of_a_packed_model_leads_out_of_the_cache(cache: Path, name: Any) -> None:
    encoded = {key: base64.b64encode(content).decode() for key, content in CONTENTS.items()}
    with pytest.raises(ModelFolderError):
        save_fetched(packed(document_with(encoded, name=name)), name)
    assert not cache.exists()


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"no zlib",
        pack(DESCRIPTION, CONTENTS)[:-9],
        zlib.compress(b"["),
        packed([]),
        packed({"description": 5, "contents": {}}),
        packed(document_with({"model_index.json": "*"})),
        packed(document_with({})),
        packed(document_with({"model_index.json": 5})),  # pyright: ignore[reportArgumentType]
        zlib.compress(b"[" * 100_000),
    ],
)
def test_a_broken_packed_description_is_one_named_error(broken: bytes) -> None:
    with pytest.raises(ModelFolderError, match="a packed description"):
        unpack(broken)


def test_a_packed_description_that_grows_too_much_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 10_000)
    with pytest.raises(ModelFolderError, match="too large"):
        unpack(zlib.compress(bytes(10_001)))


def test_a_description_of_another_model_or_of_too_many_files_is_not_kept(cache: Path) -> None:
    with pytest.raises(ModelFolderError, match="asked for other and described another model"):
        save_fetched(pack(DESCRIPTION, CONTENTS), "other")
    many = {f"tokenizer/{number}": "" for number in range(65)}
    document = document_with(many, files=dict.fromkeys(many, "0" * 64))
    with pytest.raises(ModelFolderError, match="not one of a description"):
        save_fetched(packed(document), "mine")
    assert not cache.exists()


def test_lines_that_are_no_base64_are_one_named_error() -> None:
    with pytest.raises(ModelFolderError, match="broken description"):
        from_lines([f"{LINE_PREFIX}***"])


def test_a_fetched_description_replaces_the_one_before(cache: Path) -> None:
    folder = save_fetched(pack(DESCRIPTION, CONTENTS), "mine")
    assert folder == cache / "mine.described"
    (folder / "tokenizer" / "old.json").touch()
    assert save_fetched(pack(DESCRIPTION, CONTENTS), "mine") == folder
    found = {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and file.name != "description.json"
    }
    assert found == CONTENTS
    assert list(cache.iterdir()) == [folder]


def test_runs_that_fetch_the_same_at_once_do_not_take_it_from_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def rename_second(source: Path, target: Path) -> Path:
        monkeypatch.undo()
        partial = source.rename(source.with_name("other"))
        save_description(DESCRIPTION, CONTENTS, tmp_path)
        return rename(partial, target)

    monkeypatch.setattr(Path, "rename", rename_second)
    folder = save_description(DESCRIPTION, CONTENTS, tmp_path)
    written = (folder / "description.json").stat().st_ino
    assert save_description(DESCRIPTION, CONTENTS, tmp_path) == folder
    assert (folder / "description.json").stat().st_ino == written
    changed = {**CONTENTS, "model_index.json": b"{ }"}
    save_description(DESCRIPTION, changed, tmp_path)
    assert (folder / "model_index.json").read_bytes() == b"{ }"


def test_a_cache_that_others_may_write_to_is_not_used(cache: Path) -> None:
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    with pytest.raises(RefusedError, match="nagfarm-descriptions cannot be used"):
        save_fetched(pack(DESCRIPTION, CONTENTS), "mine")
    assert not list(cache.iterdir())


def test_a_folder_that_is_no_description_is_never_replaced(tmp_path: Path) -> None:
    mine = tmp_path / "mine.described"
    mine.mkdir()
    (mine / "notes.txt").touch()
    with pytest.raises(RefusedError, match=r"mine\.described cannot be written"):
        save_description(DESCRIPTION, CONTENTS, tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine.described", "notes.txt"]


def test_what_others_planted_beside_it_stays(tmp_path: Path) -> None:
    foreign = tmp_path / f".mine.described.{os.getpid()}.partial"
    foreign.mkdir()
    (foreign / "notes.txt").touch()
    folder = save_description(DESCRIPTION, CONTENTS, tmp_path)
    assert (foreign / "notes.txt").exists()
    assert sorted(tmp_path.iterdir()) == [foreign, folder]
