"""The device-hours and the price of a plan, each part with the source of its times."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.cli.plan_cost import estimate_lines
from jobs.costs.run_cost import NO_COST, DeviceHours, RunCost
from jobs.manifest.manifest import open_manifest
from jobs.overview.run_costs import OutputCost
from jobs.plan.plan import Plan, make_plan
from jobs.settings.run_config import RunConfig, load_config
from jobs.simulation.conditions import ClipKind, ClipTimes
from jobs.simulation.estimate import estimate_plan
from jobs.simulation.measured import Measured
from pipelines.cost.prediction import H100, NVLINK_H100, Work, card_of, predict
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import VideoShape
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]
A100 = "NVIDIA A100-SXM4-80GB"
SHAPE = VideoShape(17, 64, 64)
NOTHING = Measured({}, {}, 0)
NO_RUNS = OutputCost(NO_COST, 0, 0)
ROWS: tuple[dict[str, object], ...] = (
    *({"prompt": "a", "seed": seed} for seed in range(3)),
    {"prompt": "b", "num_inference_steps": 4},
    *({"prompt": "a", "model": "grouped", "seed": seed} for seed in range(2)),
    {"prompt": "c", "model": "coarse"},
)


@pytest.fixture
def plan(write: Write, catalog: FakeCatalog) -> Plan:
    manifest = open_manifest(write("a.jsonl", jsonl(ROWS)), catalog, model="tiny")
    return make_plan(manifest, (), ())


MEASURED = Measured(
    {
        ClipKind("tiny", SHAPE, 8, ONE_DEVICE): [ClipTimes(1000.0), ClipTimes(1400.0)],
        ClipKind("grouped", SHAPE, 8, ParallelConfig(2)): [ClipTimes(900.0)],
    },
    {"tiny": [12.0], "grouped": [20.0]},
    3,
    {"tiny": A100, "grouped": A100},
)
PRICES = ["costs.currency=USD", "costs.prices={A100: 1, H100: 3}"]


def test_each_model_has_the_hours_of_its_clips_from_the_best_source(
    plan: Plan, catalog: FakeCatalog
) -> None:
    found = estimate_plan(plan, catalog, load_config(None, PRICES), MEASURED)
    rows = {(one.model, one.source): one for one in found.models}
    assert set(rows) == {
        ("tiny", "records"), ("tiny", "scaled"), ("grouped", "records"), ("coarse", "predicted"),
    }  # fmt: skip
    tiny = rows["tiny", "records"]
    assert (tiny.num_clips, tiny.device, tiny.price) == (3, A100, tiny.device_hours * 1)
    assert tiny.device_hours == pytest.approx(3 * 1200 / 3600), "the mean of the records"
    assert rows["grouped", "records"].device_hours == pytest.approx(2 * 900 * 2 / 3600), "of two"
    # text and decoding do not become shorter with fewer steps
    assert 0.5 < rows["tiny", "scaled"].device_hours / (1200 / 3600) < 0.75
    assert found.device_hours == pytest.approx(sum(one.device_hours for one in found.models))
    assert found.price == pytest.approx(found.device_hours), "all on A100s"
    assert found.starts_s == {"tiny": 12.0, "grouped": 40.0, "coarse": 60.0}


@pytest.mark.parametrize(
    ("settings", "measured", "card"),
    [
        ((), NOTHING, H100),
        (("workers.accelerator_type=A100",), NOTHING, card_of("A100")),
        ((), Measured({}, {}, 0, {"other": A100}), card_of("A100")),
    ],
)
def test_a_model_without_records_is_predicted_for_the_card_it_will_have(
    plan: Plan, catalog: FakeCatalog, settings: tuple[str, ...], measured: Measured, card: object
) -> None:
    config = load_config(None, [*PRICES, *settings])
    (one,) = [
        row
        for row in estimate_plan(plan, catalog, config, measured).models
        if row.model == "coarse"
    ]
    assert (one.source, one.card) == ("predicted", card)
    bucket = next(bucket for bucket in plan.buckets if bucket.model == "coarse")
    work = Work(catalog.get("coarse").geometry, bucket.shape, 8, bucket.method)
    each_s = predict(work, ONE_DEVICE, one.card, NVLINK_H100).total_s
    assert one.device_hours == pytest.approx(each_s / 3600)
    assert one.price == pytest.approx(one.device_hours * (3 if one.card is H100 else 1))


def test_the_table_says_where_each_time_comes_from_and_what_it_leaves_out(
    plan: Plan, catalog: FakeCatalog
) -> None:
    found = estimate_plan(plan, catalog, load_config(None, PRICES), MEASURED)
    wasted = DeviceHours.of("tiny", A100, {"denoise": 97.0, "lost": 3.0}, None)
    earlier = OutputCost(RunCost.of((wasted,), ""), 2, 0)
    lines = estimate_lines(found, MEASURED, "USD", earlier)
    assert lines[0].split() == ["model", "clips", "device-hours", "cost", "times", "from"]
    text = "\n".join(lines)
    assert f"3          1.00  USD 1.00  3 records, {A100}" in text
    assert f"records of another size, scaled; {A100}" in text
    assert "the cost model, since no record is there: A100s at 109 TFLOP/s (not measured)" in text
    assert lines[-2].split()[:4] == ["in", "all", "7", f"{found.device_hours:.2f}"]
    assert lines[-1] == (
        "not in it: the start of each worker, 40 s (grouped), 12 s (tiny), 60 s (coarse, assumed) "
        "of a device; failures (3.0% of the device-hours of 2 earlier runs); idle devices at the "
        "end. --simulate N plays the run through"
    )


def test_without_a_price_there_is_no_column_of_costs_and_an_option_gives_one(
    plan: Plan, catalog: FakeCatalog
) -> None:
    found = estimate_plan(plan, catalog, RunConfig(), MEASURED)
    assert found.price is None
    assert "cost" not in estimate_lines(found, MEASURED, "", NO_RUNS)[0]
    priced = estimate_plan(plan, catalog, RunConfig(), MEASURED, price=2.0)
    assert priced.price == pytest.approx(2 * priced.device_hours)
    partly = estimate_plan(plan, catalog, load_config(None, ["costs.prices={H100: 1}"]), NOTHING)
    assert partly.price is not None, "all are predicted for H100s"
