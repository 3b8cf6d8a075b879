"""The benchmark of the tables, with a few clips."""

import json
from pathlib import Path

import pytest

from benchmarks.command import main
from benchmarks.report import MEASUREMENTS, Result
from benchmarks.tables import BENCHMARK, CLIPS, LOOSE, NUM_STEPS, QUESTIONS, clips_of, figures


@pytest.mark.slow
@pytest.mark.s3
def test_the_command_writes_tables_and_asks_every_question(tmp_path: Path) -> None:
    main(BENCHMARK, [str(tmp_path / "found"), "--tiny"])
    found = Result.read(tmp_path / "found.json").cases
    assert len(found) == 2 + len(QUESTIONS) + 1
    assert all(one["cpu_s"] > 0 and one["peak_bytes"] > 10e6 for one in found.values())
    assert "-- share of each stage" in (tmp_path / "found.md").read_text()


def test_the_clips_differ_and_have_every_stage() -> None:
    clips = list(clips_of(3))
    assert len({clip.clip_id for clip in clips}) == 3
    for clip in clips:
        assert clip.record is not None
        assert len(clip.record.timings) == NUM_STEPS + 7


def test_a_slow_answer_misses_the_goal() -> None:
    cases = {
        f"{name}, {CLIPS[-1]:,} clips": {"cpu_s": 6.0, "peak_bytes": 1e8} for name in QUESTIONS
    }
    cases[f"the first question over loose JSON, {LOOSE[-1]:,} clips"] = {"cpu_s": 3.0}
    found = {figure.name: figure for figure in figures(cases)}
    assert [figure.is_met for figure in found.values()] == [False, False]


def test_the_committed_page_has_the_promise() -> None:
    result = json.loads((MEASUREMENTS / "tables.json").read_text())
    slowest = result["figures"][f"slowest answer, {CLIPS[-1]:,} clips"]
    assert slowest["value"] <= slowest["goal"]
