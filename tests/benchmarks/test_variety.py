"""The page of benchmarks.variety: what it counts, and that it renders each setting."""

import json
from pathlib import Path

import pytest

from benchmarks import variety
from benchmarks.variety import MODELS, SETTINGS, Found, page


def test_a_page_counts_the_negated_colour_and_the_largest_one() -> None:
    collapsed = Found("m", "nag", {"purple": 21, "unread": 2, "blue": 1}, 20)
    varied = Found("m", "none", {"green": 8, "blue": 8, "red": 8}, 24)
    assert collapsed.largest == ("purple", 21)
    assert (collapsed.num_colours, varied.num_colours) == (2, 3)
    text = page([varied, collapsed], 24)
    assert "| m | none | 8 of 24 | green, 8 | 3 of 6 | 24 |" in text
    assert "| m | nag | 0 of 24 | purple, 21 | 2 of 6 | 20 |" in text


def test_the_command_renders_each_setting_of_each_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["variety", str(tmp_path / "found"), "--tiny"])
    variety.main()
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    assert [(one["model"], one["setting"]) for one in results] == [
        (model, setting) for model in MODELS for setting in SETTINGS
    ]
    assert all(sum(one["colours"].values()) == 1 for one in results)
    assert (tmp_path / "found.md").read_text().count("| shapes-wan") == len(results)
