"""What was looked at is kept, also when the run that looked was killed."""

from pathlib import Path

from jobs.bench.measuring.cache import LineCache


def test_entries_are_there_again_for_the_next_run(tmp_path: Path) -> None:
    path = tmp_path / "work" / "seen.jsonl"
    LineCache(path).add("a", {"clean": True, "features": [0.5]})
    LineCache(path).add("b", {"clean": False})
    cache = LineCache(path)
    assert ("a" in cache, "b" in cache, "c" in cache) == (True, True, False)
    assert cache["a"] == {"clean": True, "features": [0.5]}


def test_half_a_line_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "seen.jsonl"
    LineCache(path).add("a", 1)
    path.write_bytes(path.read_bytes() + b'["b", {"cle')
    cache = LineCache(path)
    assert "b" not in cache
    cache.add("b", 2)
    assert (LineCache(path)["a"], LineCache(path)["b"]) == (1, 2)
