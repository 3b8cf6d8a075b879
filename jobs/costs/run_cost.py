"""The cost of a run: device-hours by model, device and stage, the wasted part, and the price.

Decides what the parts are, and how they add up: the stages and the waste of a model are its
device-hours, and the models are the run. `device_ledger` counts them. Pure.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, Self, get_args

from jobs.errors import RecordError
from jobs.settings.cost_config import MAX_PRICE

# "running": clips that are under way. "idle": loaded, and without a clip on the device.
HeldStage = Literal["load", "text", "denoise", "decode", "running", "idle"]
# Device time without a committed clip of its own. "lost": of workers that died or stalled, or did
# not load. "repeated": of clips that another attempt had committed. "stopped": under way at the
# end of the run or of a worker.
Waste = Literal["failed", "lost", "repeated", "stopped"]
STAGES: tuple[HeldStage, ...] = get_args(HeldStage)
WASTES: tuple[Waste, ...] = get_args(Waste)
TOLERANCE = 1e-6  # when a reader checks sums
MAX_HOURS = 1e12  # a million devices for a century


@dataclass(frozen=True, kw_only=True)
class DeviceHours:
    """The device-hours of one model on one kind of device.

    Args:
        device: name of the device; empty for workers that never were ready.
        device_hours: hours for which workers held devices, times these devices.
        stage_hours: useful part of them, by stage; stages without time are left out.
        wasted_hours: the rest of them, by reason.
        price_per_device_hour: None without one, and if it changed between runs.
        price: None without a price.
    """

    model: str
    device: str
    device_hours: float
    stage_hours: Mapping[str, float]
    wasted_hours: Mapping[str, float]
    price_per_device_hour: float | None
    price: float | None

    def __post_init__(self) -> None:
        for parts, known in ((self.stage_hours, STAGES), (self.wasted_hours, WASTES)):
            if unknown := [name for name in parts if name not in known]:
                raise RecordError(f"cost: expected one of {', '.join(known)}, got {unknown[0]!r}")
        hours = [*self.stage_hours.values(), *self.wasted_hours.values()]
        if min(hours, default=0.0) < 0:
            raise RecordError("cost: hours must be at least 0")
        if min(self.price or 0.0, self.price_per_device_hour or 0.0) < 0:
            raise RecordError("cost: prices must be at least 0")
        _check_sum(self.device_hours, hours, "device_hours of a model")

    @classmethod
    def of(cls, model: str, device: str, parts: Mapping[str, float], price: float | None) -> Self:
        """Build the row of a model from its hours by stage and by reason of waste.

        Args:
            price: price of a device-hour.
        """
        hours = math.fsum(parts.values())
        return cls(
            model=model,
            device=device,
            device_hours=hours,
            stage_hours={name: parts[name] for name in STAGES if parts.get(name)},
            wasted_hours={name: parts[name] for name in WASTES if parts.get(name)},
            price_per_device_hour=price,
            price=None if price is None else hours * price,
        )


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """The cost of a run so far, or of several runs.

    Args:
        device_hours: hours for which workers held devices, times these devices.
        wasted_hours: part of them without a committed clip of its own.
        wasted_share: `wasted_hours` over `device_hours`; None before the first worker.
        unpriced_hours: device-hours without a price, which `price` leaves out.
        price: price of the others; None without any price.
        currency: currency of the price, as the settings name it; may be empty.
        models: the parts of each model and kind of device.
    """

    device_hours: float
    wasted_hours: float
    wasted_share: float | None
    unpriced_hours: float
    price: float | None
    currency: str
    models: tuple[DeviceHours, ...]

    def __post_init__(self) -> None:
        _check_sum(self.device_hours, (one.device_hours for one in self.models), "device_hours")
        wasted = [hours for one in self.models for hours in one.wasted_hours.values()]
        _check_sum(self.wasted_hours, wasted, "wasted_hours")
        _check_range("wasted_share", self.wasted_share or 0.0, 1.0)
        unpriced = (one.device_hours for one in self.models if one.price is None)
        _check_sum(self.unpriced_hours, unpriced, "unpriced_hours")
        _check_sum(self.price or 0.0, (one.price or 0.0 for one in self.models), "price")

    def check_limits(self) -> None:
        """Refuse a cost that no run can have, so that those of many runs add up to a number.

        Raises:
            RecordError: its hours or its prices are too many.
        """
        _check_range("device_hours", self.device_hours, MAX_HOURS)
        _check_range("price", self.price or 0.0, MAX_HOURS * MAX_PRICE)
        for one in self.models:
            _check_range("price_per_device_hour", one.price_per_device_hour or 0.0, MAX_PRICE)

    @classmethod
    def of(cls, models: Iterable[DeviceHours], currency: str) -> Self:
        """Add up the parts of a run."""
        rows = tuple(models)
        hours = math.fsum(one.device_hours for one in rows)
        wasted = math.fsum(part for one in rows for part in one.wasted_hours.values())
        prices = [one.price for one in rows if one.price is not None]
        return cls(
            device_hours=hours,
            wasted_hours=wasted,
            wasted_share=min(wasted / hours, 1.0) if hours else None,
            unpriced_hours=math.fsum(one.device_hours for one in rows if one.price is None),
            price=math.fsum(prices) if prices else None,
            currency=currency,
            models=rows,
        )


def added_up(costs: Iterable[RunCost]) -> RunCost:
    """Return the cost of several runs together; without a price if they have several currencies."""
    all_costs = list(costs)
    currencies = {cost.currency for cost in all_costs if cost.price is not None}
    rows: dict[tuple[str, str], list[DeviceHours]] = {}
    for cost in all_costs:
        for row in cost.models:
            rows.setdefault((row.model, row.device), []).append(row)
    is_priced = len(currencies) == 1
    merged = [part for alike in rows.values() for part in _merged(alike, is_priced=is_priced)]
    return RunCost.of(merged, next(iter(currencies)) if is_priced else "")


def _merged(alike: list[DeviceHours], *, is_priced: bool) -> list[DeviceHours]:
    """Return the sum of rows of one model and device; rows without a price stay apart."""
    priced = [row for row in alike if row.price is not None and is_priced]
    rest = [row for row in alike if row.price is None or not is_priced]
    return [_sum(group, is_priced=group is priced) for group in (priced, rest) if group]


def _sum(alike: list[DeviceHours], *, is_priced: bool) -> DeviceHours:
    rates = {row.price_per_device_hour for row in alike} if is_priced else {None}
    stages, wasted = _add(row.stage_hours for row in alike), _add(row.wasted_hours for row in alike)
    return DeviceHours(
        model=alike[0].model,
        device=alike[0].device,
        device_hours=math.fsum((*stages.values(), *wasted.values())),
        stage_hours=stages,
        wasted_hours=wasted,
        price_per_device_hour=next(iter(rates)) if len(rates) == 1 else None,
        price=math.fsum(row.price or 0.0 for row in alike) if is_priced else None,
    )


def _add(parts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for one in parts:
        for name, hours in one.items():
            found.setdefault(name, []).append(hours)
    return {name: math.fsum(hours) for name, hours in found.items()}


def _check_range(name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise RecordError(f"cost: {name} must be 0 to {most:g}, not {value:g}")


def _check_sum(whole: float, parts: Iterable[float], name: str) -> None:
    found = math.fsum(parts)
    if not math.isclose(whole, found, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise RecordError(f"cost: {name} is {whole:g}, and its parts add up to {found:g}")


NO_COST = RunCost.of((), "")
