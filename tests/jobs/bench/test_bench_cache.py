"""The cache keeps judgements, also those of a run that was killed."""

import json
import os
from pathlib import Path

import pytest

from jobs.bench.design.blocks import write_design
from jobs.bench.design.options import REPORT
from jobs.bench.measuring.cache import LineCache
from jobs.bench.measuring.judging import open_cache, truth_key, truth_to_judge
from jobs.bench.reporting.tables import write_page
from jobs.errors import UnwritableError
from jobs.settings.run_config import EncodingConfig
from pipelines.shapes.evaluation.negation import draw_tasks


def test_the_next_run_finds_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "work" / "seen.jsonl"
    LineCache(path).add("a", {"clean": True, "features": [0.5]})
    LineCache(path).add("b", {"clean": False})
    cache = LineCache(path)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, True, False)
    assert cache["a"] == {"clean": True, "features": [0.5]}


def test_an_incomplete_last_line_is_dropped_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    LineCache(path).add("a", 1)
    path.write_bytes(path.read_bytes() + b'["b", {"cle')
    cache = LineCache(path)
    assert "b" not in cache
    cache.add("b", 2)
    assert (LineCache(path)["a"], LineCache(path)["b"]) == (1, 2)


@pytest.mark.parametrize(
    "line", [b"{}", b"1", b'["a"]', b"[1, 2]", b"\xff", b"[" * 9000, b'["a", 1, 2]', b""]
)
def test_a_damaged_line_is_dropped_and_the_others_stay(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "seen.jsonl"
    path.write_bytes(b'["a", 1]\n' + line + b'\n["b", 2]\n')
    cache = LineCache(path)
    assert (cache["a"], cache["b"]) == (1, 2)
    assert path.read_bytes() == b'["a", 1]\n["b", 2]\n'


def test_an_entry_that_is_no_judgement_is_judged_again(tmp_path: Path) -> None:
    (task,) = draw_tasks("colour", "open", 1)
    key, judge = truth_to_judge(task, 0, EncodingConfig())
    open_cache(tmp_path, EncodingConfig()).add(key, judge())
    (path,) = tmp_path.iterdir()
    _, entry = json.loads(path.read_text())
    for name, value in (("features", ["x"]), ("verdict", {"x": 1}), ("run_id", None)):
        damaged = {**entry, name: value}
        if value is None:
            del damaged[name]
        path.write_text(json.dumps(["other", damaged]) + "\n" + json.dumps([key, entry]) + "\n")
        cache = open_cache(tmp_path, EncodingConfig())
        assert truth_key(task, 0) in cache
        assert "other" not in cache
    path.write_text(json.dumps(["broken/frozen/0", entry]) + "\n")
    assert "broken/frozen/0" not in open_cache(tmp_path, EncodingConfig()), "is_right is missing"


def test_a_link_or_a_pipe_in_the_place_of_the_cache_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / "link.jsonl").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name in ("link.jsonl", "pipe.jsonl"):
        with pytest.raises(UnwritableError, match=f"^--report: cannot write .*{name}: "):
            LineCache(tmp_path / name)
    cache = LineCache(tmp_path / "seen.jsonl")
    (tmp_path / "seen.jsonl").unlink()
    (tmp_path / "seen.jsonl").symlink_to(victim)
    with pytest.raises(UnwritableError):
        cache.add("a", 1)
    assert victim.read_text() == "mine"


def test_the_files_of_a_report_are_never_written_through_links(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    names = ("work/clips.jsonl", "work/design.json", "page.md")
    (tmp_path / "work").mkdir()
    for name in names:
        (tmp_path / name).symlink_to(victim)
    write_design((), tmp_path / names[0], tmp_path / names[1])
    write_page(tmp_path / names[2], ["# page"])
    assert victim.read_text() == "mine"
    assert [(tmp_path / name).read_text() for name in names] == ["", "[]\n", "# page\n"]


def test_a_report_that_cannot_be_written_is_refused_by_its_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    work = tmp_path / "file" / "work"
    with pytest.raises(UnwritableError, match=f"^{REPORT}: cannot write {work}: Not a directory"):
        write_design((), work / "clips.jsonl", work / "design.json")
