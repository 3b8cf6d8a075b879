"""The cache keeps judgements, also those of a run that was killed."""

from pathlib import Path

from jobs.bench.measuring.cache import LineCache


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
