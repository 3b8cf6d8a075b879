"""The metrics keep the rules of Prometheus for names, and no label is a stranger's text."""

import re

import pytest

from jobs.metrics.definitions import MAX_LABEL, METRICS, PREFIX, STAGE_SECONDS, Metric, label_of

UNITS = ("_seconds", "_bytes")
BOUNDED = {"model", "node", "stage", "state", "reason"}


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_a_name_with_its_unit_a_help_text_and_bounded_labels(metric: Metric) -> None:
    assert re.fullmatch(PREFIX + r"[a-z0-9]+(_[a-z0-9]+)*", metric.name)
    assert not metric.name.endswith("_total"), "Ray adds it to counters"
    assert metric.exported_name.endswith("_total") == (metric.kind == "counter")
    for word, unit in (("second", "_seconds"), ("byte", "_bytes")):
        assert metric.help.lower().startswith(word) == metric.name.endswith(unit)
    assert metric.help.endswith(".")
    assert "\n" not in metric.help
    assert set(metric.labels) <= BOUNDED
    assert bool(metric.buckets) == (metric.kind == "histogram")


def test_names_are_different() -> None:
    assert len({metric.exported_name for metric in METRICS}) == len(METRICS)


def test_buckets_reach_from_a_check_of_frames_to_a_clip_of_14b() -> None:
    assert STAGE_SECONDS.buckets == tuple(sorted(STAGE_SECONDS.buckets))
    assert STAGE_SECONDS.buckets[0] <= 0.1
    assert STAGE_SECONDS.buckets[-1] >= 2400


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("wan2.1-t2v-14b", "wan2.1-t2v-14b"),
        ("node-1.example.org", "node-1.example.org"),
        ('a"} 1\nevil{x="é', "a___1_evil_x___"),
        ("m" * 500, "m" * MAX_LABEL),
    ],
)
def test_a_label_is_short_and_ascii(text: str, label: str) -> None:
    assert label_of(text) == label
