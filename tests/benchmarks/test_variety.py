"""The page of benchmarks.variety: what it counts, and that it renders each setting."""

from pathlib import Path
from typing import Any

from benchmarks.command import main
from benchmarks.report import Result
from benchmarks.variety import BENCHMARK, MODELS, SETTINGS, Found, body


def test_a_page_counts_the_negated_colour_and_the_largest_one() -> None:
    collapsed: dict[str, Any] = {"colours": {"purple": 21, "unread": 2, "blue": 1}, "num_clean": 20}
    varied: dict[str, Any] = {"colours": {"green": 8, "blue": 8, "red": 8}, "num_clean": 24}
    assert Found(**collapsed).largest == ("purple", 21)
    assert (Found(**collapsed).num_colours, Found(**varied).num_colours) == (2, 3)
    text = body({"m": {"none": varied, "nag": collapsed}})
    assert "| m: none | 8 of 24 | green, 8 | 3 of 6 | 24 |" in text
    assert "| m: nag | 0 of 24 | purple, 21 | 2 of 6 | 20 |" in text


def test_the_command_renders_each_setting_of_each_model(tmp_path: Path) -> None:
    main(BENCHMARK, [str(tmp_path / "found"), "--tiny"])
    cases = Result.read(tmp_path / "found.json").cases
    assert {model: list(settings) for model, settings in cases.items()} == {
        model: list(SETTINGS) for model in MODELS
    }
    assert all(
        sum(one["colours"].values()) == 1
        for settings in cases.values()
        for one in settings.values()
    )
    assert (tmp_path / "found.md").read_text().count("| shapes-wan") == len(MODELS) * len(SETTINGS)
