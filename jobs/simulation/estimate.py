"""The device-hours of the clips that a plan is to render, and what they cost.

Decides the source of each model's times, which the plan names: records of such clips, records of
another size, or the cost model. Loads without torch.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from jobs.manifest.rows import Catalog
from jobs.plan.plan import Plan
from jobs.settings.run_config import RunConfig
from jobs.simulation.measured import Measured
from jobs.simulation.predicted import START_S, Source, card_for, times_of
from pipelines.cost.prediction import Device

HOUR_S = 3600.0
CPU = "cpu"  # the name of the device of a model that renders on the CPU


@dataclass(frozen=True)
class ModelEstimate:
    """The expected device-hours of clips of one model whose times have one source.

    Args:
        device: name of the device that its price goes by.
        card: the card of a predicted time.
        device_hours: hours of the device for its clips, times the devices of each.
        price: price of these hours; None without one.
    """

    model: str
    source: Source
    device: str
    card: Device
    num_clips: int
    device_hours: float
    price: float | None


@dataclass(frozen=True)
class Estimate:
    """The expected device-hours of a plan.

    Args:
        models: the parts of it.
        unknown: models whose times are not known.
        starts_s: seconds of the devices of a worker until it is ready, by model.
        num_records: records that tell the times.
    """

    models: tuple[ModelEstimate, ...]
    unknown: tuple[str, ...]
    starts_s: Mapping[str, float]
    num_records: int

    @property
    def device_hours(self) -> float:
        return sum(one.device_hours for one in self.models)

    @property
    def price(self) -> float | None:
        """Return the price of all; None if a part has none."""
        prices = [one.price for one in self.models if one.price is not None]
        return sum(prices) if prices and len(prices) == len(self.models) else None


def estimate_plan(
    plan: Plan, catalog: Catalog, config: RunConfig, measured: Measured, price: float | None = None
) -> Estimate:
    """Return the device-hours of the pending clips of a plan.

    Args:
        measured: times in the records of an output.
        price: price of a device-hour of any device; None for the prices of the settings.
    """
    found: dict[tuple[str, Source], tuple[int, float]] = {}
    starts_s: dict[str, float] = {}
    unknown = dict[str, None]()
    for bucket in plan.buckets:
        if not bucket.num_pending:
            continue
        times = times_of(bucket, measured, catalog, _card(bucket.model, config, measured))
        if times is None:
            unknown[bucket.model] = None
            continue
        num_gpus = config.workers.placement_of(bucket.model).num_gpus
        num_devices = bucket.parallel.degree * (num_gpus or 1)
        each_s = statistics.fmean(one.device_s for one in times.clips)
        num_clips, hours = found.get((bucket.model, times.source), (0, 0.0))
        hours += bucket.num_pending * each_s * num_devices / HOUR_S
        found[bucket.model, times.source] = num_clips + bucket.num_pending, hours
        start_s = statistics.median(measured.starts_s.get(bucket.model) or [START_S])
        starts_s[bucket.model] = max(start_s * num_devices, starts_s.get(bucket.model, 0.0))
    rows: list[ModelEstimate] = []
    for (model, source), (num_clips, hours) in found.items():
        device = device_for(model, catalog, config, measured)
        rate = config.costs.price_of(device) if price is None else price
        cost = None if rate is None else hours * rate
        card = _card(model, config, measured)
        rows.append(ModelEstimate(model, source, device, card, num_clips, hours, cost))
    return Estimate(tuple(rows), tuple(unknown), starts_s, measured.num_records)


def device_for(model: str, catalog: Catalog, config: RunConfig, measured: Measured) -> str:
    """Return the name of the device on which a model is expected to render."""
    if model in measured.devices:
        return measured.devices[model]
    wanted = config.workers.placement_of(model).accelerator_type
    if wanted is None and catalog.get(model).config.device == CPU:
        return CPU
    return wanted or _card(model, config, measured).name


def _card(model: str, config: RunConfig, measured: Measured) -> Device:
    return card_for(model, measured, config.workers.placement_of(model).accelerator_type)
