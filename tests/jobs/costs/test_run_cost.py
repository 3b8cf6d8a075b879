"""The cost of runs as values: sums, prices, JSON and words."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from jobs.costs.run_cost import (
    NO_COST,
    STAGES,
    WASTES,
    DeviceHours,
    RunCost,
    added_up,
)
from jobs.costs.wording import cost_text
from jobs.errors import ConfigError, RecordError
from jobs.records.strict_json import dump, from_dataclass, load, to_dataclass
from jobs.settings.cost_config import CostConfig
from jobs.settings.run_config import load_config

H100 = "NVIDIA H100 80GB HBM3"
ROOT = Path(__file__).parents[3]


def row(hours: float, price: float | None = 2.0, device: str = H100, **parts: float) -> DeviceHours:
    return DeviceHours.of("wan", device, {"denoise": hours, **parts}, price)


COST = RunCost.of((row(10.0, load=1.5, idle=0.5, lost=0.4), row(1.0, None, "cpu")), "USD")


def test_a_cost_comes_back_as_it_was_written() -> None:
    assert to_dataclass(RunCost, load(dump(from_dataclass(COST)))) == COST


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        (lambda: replace(COST, device_hours=99.0), "device_hours is 99, and its parts add up"),
        (lambda: replace(COST, wasted_hours=0.0), "wasted_hours is 0, and its parts add up to 0.4"),
        (lambda: replace(row(1.0), device_hours=2.0), "device_hours of a model is 2"),
        (
            lambda: replace(row(1.0), stage_hours={"nap": 1.0}),
            "expected one of load, text, .*'nap'",
        ),
        (lambda: replace(row(1.0), wasted_hours={"denoise": 0.0}), "expected one of failed, lost"),
        (lambda: row(1.0, load=-0.5), "hours must be at least 0"),
        (lambda: row(1.0, -2.0), "prices must be at least 0"),
        (lambda: replace(COST, wasted_share=1.5), "wasted_share must be 0 to 1, not 1.5"),
        (lambda: replace(COST, unpriced_hours=9.0), "unpriced_hours is 9, and its parts add up to"),
        (lambda: replace(COST, price=None), "price is 0, and its parts add up to 24.8"),
    ],
)
def test_a_cost_whose_parts_are_not_the_whole_is_refused(cost: object, message: str) -> None:
    assert callable(cost)
    with pytest.raises(RecordError, match=message):
        cost()


@pytest.mark.parametrize(
    "cost",
    [
        RunCost.of((row(2e12, None),), ""),
        RunCost.of((replace(row(1.0), price=1e28),), ""),
        RunCost.of((replace(row(1.0), price_per_device_hour=1e16),), ""),
    ],
)
def test_a_cost_that_no_run_can_have_is_beyond_the_limits(cost: RunCost) -> None:
    COST.check_limits()
    with pytest.raises(RecordError, match=r"must be 0 to 1e\+"):
        cost.check_limits()


def test_the_cost_of_several_runs_adds_up() -> None:
    whole = added_up([COST, COST, NO_COST])
    assert whole.device_hours == pytest.approx(2 * COST.device_hours)
    assert whole.wasted_share == pytest.approx(COST.wasted_share)
    assert COST.price is not None
    assert whole.price == pytest.approx(2 * COST.price)
    assert whole.unpriced_hours == pytest.approx(2.0)
    assert [(one.device, one.price_per_device_hour) for one in whole.models] == [
        (H100, 2.0),
        ("cpu", None),
    ]
    assert added_up([]) == NO_COST


def test_runs_with_other_prices_keep_them_and_those_with_other_currencies_have_none() -> None:
    dearer = RunCost.of((row(1.0, 3.0), row(1.0, None)), "USD")
    whole = added_up([COST, dearer])
    assert [(one.device_hours, one.price_per_device_hour) for one in whole.models] == [
        (pytest.approx(13.4), None),
        (1.0, None),
        (1.0, None),
    ]
    assert whole.price == pytest.approx(12.4 * 2 + 3)
    mixed = added_up([COST, RunCost.of((row(1.0, 3.0),), "EUR")])
    assert (mixed.price, mixed.currency) == (None, "")
    assert mixed.unpriced_hours == mixed.device_hours == pytest.approx(14.4)


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (NO_COST, None),
        (COST, "13.4 device-hours, USD 24.80 (1.00 h have no price), 3.0% wasted (lost 0.40 h)"),
        (RunCost.of((row(1234.5),), "$"), "1,234 device-hours, $2,469.00"),
        (RunCost.of((row(0.002, 2.5),), ""), "0.0020 device-hours, 0.01"),
        (RunCost.of((row(0.25, None),), ""), "0.25 device-hours"),
        (
            RunCost.of((row(0.0, None, failed=0.02, lost=0.06),), ""),
            "0.080 device-hours, 100.0% wasted (failed 0.020 h, lost 0.060 h)",
        ),
    ],
)
def test_a_cost_is_one_line_for_people(cost: RunCost, expected: str | None) -> None:
    assert cost_text(cost) == expected


@pytest.mark.parametrize(
    ("device", "price"),
    [
        (H100, 2.5),
        ("NVIDIA H100 NVL", 2.1),
        ("NVIDIA A100-SXM4-80GB", 1.2),
        ("NVIDIA GH100", 9.0),
        ("CPU", 0.1),
        ("", 9.0),
    ],
)
def test_a_device_has_the_price_of_the_longest_name_that_its_own_holds(
    device: str, price: float
) -> None:
    prices = CostConfig("EUR", 9.0, {"H100": 2.5, "h100 nvl": 2.1, "A100": 1.2, "cpu": 0.1})
    assert prices.price_of(device) == price
    assert CostConfig().price_of(device) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("costs.currency='U S'", "costs.currency must be at most 8 letters"),
        ("costs.price_per_device_hour=-1", "costs.price_per_device_hour must be at least 0"),
        ("costs.prices={H100: -2}", r"number of at least 0, such as H100: 2.50, .* got 'H100': -2"),
        ("costs.prices={H100: 2e15}", r"and at most 1e\+15, got 'H100': 2000000000000000"),
        ("costs.prices={H100: .inf}", "got 'H100': inf"),
        ("costs.price_per_device_hour=1e16", r"must be at most 1e\+15, got 1e\+16"),
        ("costs.prices={' ': 2}", "expected the name of a device"),
    ],
)
def test_impossible_prices_are_refused(setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, [setting])


def test_prices_are_settings() -> None:
    settings = ["costs.currency=USD", "costs.prices={H100: 2.5, NVIDIA A100: 1}"]
    assert load_config(None, settings).costs == CostConfig(
        "USD", None, {"H100": 2.5, "NVIDIA A100": 1.0}
    )


def test_every_part_of_a_cost_is_documented() -> None:
    text = (ROOT / "docs" / "how-to" / "costs.md").read_text(encoding="utf-8")
    names = {one.name for kind in (RunCost, DeviceHours, CostConfig) for one in fields(kind)}
    assert not {name for name in (*names, *STAGES, *WASTES) if f"`{name}`" not in text}
