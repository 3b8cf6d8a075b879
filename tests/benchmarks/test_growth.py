"""The benchmark of growth, with a few rows and clips."""

from pathlib import Path

import pytest

from benchmarks.command import main
from benchmarks.growth.__main__ import BENCHMARK, CLIPS, ROWS, figures
from benchmarks.report import Result


@pytest.mark.slow
def test_the_command_measures_a_plan_and_an_output(tmp_path: Path) -> None:
    cases = ("plan jsonl, 200 rows", "gc, 20 clips")
    main(BENCHMARK, [str(tmp_path / "found"), "--tiny", "--only", *cases])
    found = Result.read(tmp_path / "found.json").cases
    assert tuple(found) == cases
    assert all(one["cpu_s"] > 0 and one["peak_bytes"] > 10e6 for one in found.values())
    assert "| gc, 20 clips |" in (tmp_path / "found.md").read_text()


def test_a_row_that_costs_more_among_many_rows_misses_the_goal() -> None:
    cpu_s = dict(zip(ROWS, (2.0, 2.3, 5.0, 48.0), strict=True))  # 30 then 46 microseconds a row
    rows = {
        f"plan jsonl, {num:,} rows": {"cpu_s": seconds, "wall_s": 1.0, "peak_bytes": 1e8}
        for num, seconds in cpu_s.items()
    }
    clips = {
        f"gc, {num:,} clips": {"cpu_s": 1.0, "wall_s": 1.0, "peak_bytes": 60e6 + 100 * num}
        for num in CLIPS
    }
    by_name = {figure.name: figure for figure in figures(rows | clips)}
    a_row = by_name["CPU time a row, 1,000,000 / 100,000 rows, jsonl"]
    assert (round(a_row.value, 2), a_row.is_met) == (1.53, False)
    assert not by_name["1,000,000 rows, jsonl"].is_met
    assert by_name["peak memory, 1,000,000 rows, jsonl"].is_met
    assert by_name["peak memory, 100,000 / 1,000 clips, gc"].is_met
