"""The cost of all runs of an output, from the documents that they left."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.cli.outputs.status import status_lines
from jobs.costs.run_cost import NO_COST, DeviceHours, RunCost
from jobs.errors import RecordError
from jobs.overview import run_costs
from jobs.overview.output_status import read_output_status
from jobs.overview.run_costs import read_output_cost
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE, STATUS_FILE, run_key
from jobs.records.run_status import RunStatus, write_status
from jobs.records.strict_json import from_dataclass
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.records import AT_S
from tests.builders.statuses import status_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


def cost_of(hours: float, lost: float = 0.0) -> RunCost:
    parts = {"denoise": hours, "lost": lost}
    return RunCost.of((DeviceHours.of("wan", "cpu", parts, 2.0),), "USD")


def ended(store: Store, run_id: str, cost: RunCost) -> RunStatus:
    status = replace(status_of("finished", AT_S), run_id=run_id, cost=cost)
    write_run(store, run_id, RUN_FILE, {})
    write_status(store, status)
    return status


def test_the_costs_of_all_runs_add_up_and_what_cannot_be_read_is_left_out(store: Store) -> None:
    assert read_output_cost(store) == run_costs.OutputCost(NO_COST, 0, 0)
    ended(store, "run-1", cost_of(3.0, 1.0))
    ended(store, "run-2", cost_of(1.0))
    store.put(run_key("run-3", STATUS_FILE), b"{", "application/json")
    store.put(run_key("run-4", STATUS_FILE), b'{"cost": {"device_hours": 9}}', "application/json")
    found = read_output_cost(store)
    assert (found.num_runs, found.num_left_out) == (2, 0)
    assert (found.cost.device_hours, found.cost.wasted_share, found.cost.price) == (5.0, 0.2, 10.0)


def infinite_parts(cost: dict[str, Any]) -> None:
    cost["models"][0]["stage_hours"] = {"denoise": 1.7e308, "decode": 1.7e308}


def infinite_rows(cost: dict[str, Any]) -> None:
    hours = {"device_hours": 1.7e308, "stage_hours": {"denoise": 1.7e308}, "wasted_hours": {}}
    cost["models"] = [cost["models"][0] | hours] * 2


def infinite_prices(cost: dict[str, Any]) -> None:
    cost["models"] = [cost["models"][0] | {"device": one, "price": 1e308} for one in "ab"]
    cost |= {"device_hours": 2 * cost["device_hours"], "price": 1.7e308}


def largest_price(cost: dict[str, Any]) -> None:
    """Make a price that overflows only beside that of another run."""
    cost["models"][0]["price"] = cost["price"] = 1.7e308


def largest_hours(cost: dict[str, Any]) -> None:
    row = {"device_hours": 1.7e308, "stage_hours": {"denoise": 1.7e308}, "wasted_hours": {}}
    cost["models"][0] |= row
    cost["device_hours"] = 1.7e308


@pytest.mark.parametrize(
    "edit", [infinite_parts, infinite_rows, infinite_prices, largest_price, largest_hours]
)
def test_a_cost_beyond_every_number_is_left_out(
    store: Store, edit: Callable[[dict[str, Any]], None]
) -> None:
    ended(store, "run-1", cost_of(3.0))
    document = from_dataclass(ended(store, "run-2", cost_of(1.0)))
    edit(document["cost"])
    for name in ("run-2", "run-3"):
        content = json.dumps(document).encode()
        store.put(run_key(name, RUN_FILE), b"{}", "application/json")
        store.put(run_key(name, STATUS_FILE), content, "application/json")
    found = read_output_cost(store)
    assert (found.num_runs, found.cost.device_hours, found.cost.price) == (1, 3.0, 6.0)
    with pytest.raises(RecordError, match="cost"):
        RunStatus.from_json(content)
    text = "\n".join(status_lines(read_output_status(store), AT_S, found))
    assert "\ncannot be read: " in text


def test_only_the_newest_runs_are_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_costs, "MAX_RUNS", 1)
    for number in range(3):
        ended(store, f"run-{number}", cost_of(1.0))
    found = read_output_cost(store)
    assert (found.num_runs, found.num_left_out, found.cost.device_hours) == (1, 2, 1.0)


def test_the_status_has_the_cost_of_all_runs_once_there_are_two(store: Store) -> None:
    ended(store, "run-1", cost_of(3.0, 1.0))

    def shown() -> str:
        cost = read_output_cost(store)
        return "\n".join(status_lines(read_output_status(store), AT_S, cost))

    assert "all runs" not in shown()
    ended(store, "run-2", cost_of(1.0))
    line = "2 runs: 5.00 device-hours, USD 10.00, 20.0% wasted (lost 1.00 h)"
    assert f"\n  all runs     {line}\n" in shown()
