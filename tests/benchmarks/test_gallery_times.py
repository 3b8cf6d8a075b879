"""The page of benchmarks.gallery: which times count against the goals."""

from typing import Any

import pytest

from benchmarks.gallery import CHANGES, FILTERS, body, figures


def case(slow: str = "") -> dict[str, Any]:
    opened = {"paint_s": [0.2, 0.4], "tiles_s": [0.5, 2.5], "loaded_s": [1.0, 1.2]}
    return {
        "num_clips": 20,
        "opened": {**opened, "heap_mib": [9.0, 9.0], "num_elements": [400, 500]},
        "changes": {name: [0.02, 0.3 if name == slow else 0.03] for name in CHANGES},
    }


def test_the_slowest_filter_counts_by_its_median_and_nothing_but_filters() -> None:
    assert len(FILTERS) == 4
    by_name = {one.name: one for one in figures({"20 clips": case(slow=FILTERS[1])})}
    assert by_name["20 clips: first paint"].value == pytest.approx(0.3)
    assert by_name["20 clips: first paint"].is_met
    assert by_name["20 clips: first clips"].is_met
    assert by_name["20 clips: slowest filter"].value == pytest.approx(0.16)
    assert by_name["20 clips: slowest filter"].is_met is False
    others = figures({"20 clips": case(slow="charts")})
    assert all(one.value < 0.1 for one in others if "filter" in one.name)


def test_the_page_has_each_change() -> None:
    text = body({"20 clips": case()})
    assert "| charts | 20, 25, 30 |" in text
    assert all(f"| {name} |" in text for name in CHANGES)
