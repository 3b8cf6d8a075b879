"""The rows of a plan as CSV."""

import csv
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import RefusedError
from jobs.manifest.manifest import open_manifest
from jobs.plan.plan import make_plan
from jobs.plan.rows_table import write_rows
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]
ROWS = (
    {"prompt": "a"},
    {"prompt": "b", "name": "hero"},
    {"prompt": "a", "name": "again"},
    {"prompt": "c", "name": "third"},
    {"prompt": "d", "name": "fourth"},
)


@pytest.fixture
def manifest_file(write: Write) -> Path:
    return write("night.jsonl", jsonl(ROWS))


def test_each_row_has_its_name_the_state_of_its_clip_and_the_key_of_the_mp4(
    manifest_file: Path, tmp_path: Path, catalog: FakeCatalog
) -> None:
    manifest = open_manifest(manifest_file, catalog, model="tiny")
    a, b, c, d = (spec.clip_id for spec in manifest.specs())
    plan = make_plan(manifest, {a, c}, {b}, {c})
    path = tmp_path / "rows.csv"
    path.write_text("row,name,clip_id,state,key\n0,older,0,done,\n")
    write_rows(plan, {a: f"clips/{a}/0.mp4", d: "clips/not-committed.mp4"}, path)
    with path.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["row", "name", "clip_id", "state", "key"],
            ["0", "night-000000", a, "done", f"clips/{a}/0.mp4"],
            ["1", "hero", b, "quarantined", ""],
            ["2", "again", a, "done", f"clips/{a}/0.mp4"],
            ["3", "third", c, "damaged", ""],
            ["4", "fourth", d, "pending", ""],
        ]
    assert sorted(tmp_path.iterdir()) == [manifest_file, path]
    assert plan.num_other_names == 2
    other_names = [(clip.clip_id, clip.name) for clip in plan.other_names()]
    assert other_names == [(a, "again"), (c, "third")]


def test_a_file_that_holds_something_else_stays(
    manifest_file: Path, tmp_path: Path, catalog: FakeCatalog
) -> None:
    plan = make_plan(open_manifest(manifest_file, catalog, model="tiny"), (), ())
    content, empty = manifest_file.read_bytes(), tmp_path / "empty.csv"
    with pytest.raises(RefusedError, match="holds something else than rows of a plan"):
        write_rows(plan, {}, manifest_file)
    assert manifest_file.read_bytes() == content
    empty.touch()
    write_rows(plan, {}, empty)
    assert len(empty.read_text().splitlines()) == 6


def test_a_file_that_cannot_be_written_is_refused_and_leaves_nothing(
    manifest_file: Path, tmp_path: Path, catalog: FakeCatalog
) -> None:
    plan = make_plan(open_manifest(manifest_file, catalog, model="tiny"), (), ())
    for path, message in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none" / "rows.csv", "No such file or directory"),
        (manifest_file / "rows.csv", "Not a directory"),
    ):
        with pytest.raises(RefusedError, match=f"^--rows: cannot write {path}: {message}"):
            write_rows(plan, {}, path)
    assert list(tmp_path.iterdir()) == [manifest_file]


def test_a_pipe_gets_the_rows_and_stays_a_pipe(
    manifest_file: Path, tmp_path: Path, catalog: FakeCatalog
) -> None:
    plan = make_plan(open_manifest(manifest_file, catalog, model="tiny"), (), ())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_rows(plan, {}, pipe)
        assert len(os.read(reading, 100_000).splitlines()) == len(ROWS) + 1
    finally:
        os.close(reading)
    assert pipe.is_fifo()
