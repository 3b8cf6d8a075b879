"""Plans as text, as `nagfarm plan` and `render` print them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli.plan import ORDER_TEXT, plan_lines
from jobs.manifest.manifest import open_manifest
from jobs.plan.plan import make_plan
from tests.builders.manifests import GROUPED_ROWS, MIXED_ROWS, jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def rows(write: Write) -> Path:
    return write("night.jsonl", jsonl(MIXED_ROWS))


def test_a_plan_is_printed_as_a_table(rows: Path, catalog: FakeCatalog) -> None:
    manifest = open_manifest(rows, catalog, model="tiny")
    plan = make_plan(manifest, {next(manifest.specs()).clip_id}, set())
    assert plan_lines(plan) == [
        "night: 4 clips (5 rows, 1 pixel-equal to an earlier one)",
        "  done 1, quarantined 0, to render 3",
        "",
        "  model   size   frames  steps  clips  to render",
        "  tiny    64x64      17      8      2          1",
        "  tiny    64x64      17      4      1          1",
        "  coarse  96x64      17      8      1          1",
        f"  {ORDER_TEXT}",
    ]


def test_committed_clips_without_an_mp4_are_counted_as_damaged_and_not_rendered(
    rows: Path, catalog: FakeCatalog
) -> None:
    manifest = open_manifest(rows, catalog, model="tiny")
    ids = [spec.clip_id for spec in manifest.specs()]
    plan = make_plan(manifest, set(ids[:3]), set(), {ids[0], ids[2], "of another manifest"})
    assert (plan.num_done, plan.num_damaged, plan.num_pending) == (1, 2, 1)
    assert [spec.clip_id for spec in plan.pending()] == ids[3:]
    assert [*plan_lines(plan)][1:3] == [
        "  done 1, damaged 2, quarantined 0, to render 1",
        (
            "  damaged: 2 clips with a record and without an MP4; "
            "render --repair renders the missing again"
        ),
    ]


@pytest.fixture
def grouped(write: Write) -> Path:
    return write("night.jsonl", jsonl(GROUPED_ROWS))


def test_the_plan_has_a_column_of_devices_if_any_clip_is_for_a_group(
    grouped: Path, catalog: FakeCatalog
) -> None:
    printed = plan_lines(make_plan(open_manifest(grouped, catalog, model="tiny"), set(), set()))
    assert printed[3:] == [
        "  model  size   devices                          frames  steps  clips  to render",
        "  tiny   64x64  ulysses 4                            17      8      2          2",
        "  tiny   64x64  ulysses 4                            13      8      1          1",
        "  tiny   64x64  ulysses 2 x ring 2 across hosts      17      8      1          1",
        "  tiny   64x64  one device                           17      8      1          1",
        f"  {ORDER_TEXT}",
    ]


def test_advice_stands_below_the_table(rows: Path, catalog: FakeCatalog) -> None:
    plan = make_plan(open_manifest(rows, catalog, model="tiny"), set(), set())
    assert plan_lines(plan, ["take two", "or one"]) == [
        *plan_lines(plan),
        "  take two",
        "  or one",
    ]


def test_a_long_table_is_cut(write: Write, catalog: FakeCatalog) -> None:
    text = "name: a\nmodel: tiny\naxes: {prompt: [p], num_inference_steps: {range: [1, 31]}}"
    printed = plan_lines(make_plan(open_manifest(write("a.yaml", text), catalog), set(), set()))
    assert printed[-2:] == ["  and 10 more kinds of clip", f"  {ORDER_TEXT}"]
    assert len(printed) == 26
