"""The device-hours, the cost and the simulation below a plan, for `nagfarm plan`."""

from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.progress import Progress

from jobs.cli.pattern.command import Context
from jobs.cli.pattern.wording import table_lines
from jobs.costs.wording import hours_text, price_text
from jobs.overview.run_costs import OutputCost, read_output_cost
from jobs.run.documents import OpenedManifest
from jobs.run.progress.long_work import long_work
from jobs.simulation.conditions import Conditions, Timings
from jobs.simulation.estimate import Estimate, ModelEstimate, device_for, estimate_plan
from jobs.simulation.measured import Measured, read_measured
from jobs.simulation.options import SimulationOptions
from jobs.simulation.outcome import Outcome
from jobs.simulation.planned import simulate_plan, timings_of_plan
from jobs.simulation.predicted import RENDER_FIRST, card_text
from jobs.simulation.report import COST, HEADERS, cells, remarks
from jobs.store.store import Store, open_existing
from jobs.text import counted, duration

MAX_RECORDS = 200  # ids are random, so that the first ones are a fair choice
COLUMNS = ("model", "clips", "device-hours", "cost", "times from")
NUMBERS = ("clips", "device-hours", "cost")


def say_cost(
    opened: OpenedManifest,
    options: SimulationOptions,
    conditions: Sequence[Conditions],
    context: Context,
) -> None:
    """Print what the clips of a plan are expected to cost, and the simulated runs.

    Raises:
        RefusedError: the times of some clips are unknown to a simulation, or none is left.
        StoreError: the store does not answer.
    """
    store, config = opened.store, opened.config
    source = open_existing(options.from_uri, config.store) if options.from_uri else store
    if conditions:
        _simulate(opened, options, conditions, context, source)
    elif opened.plan.num_pending:
        models = {bucket.model for bucket in opened.plan.buckets if bucket.num_pending}
        with long_work(f"reading records of {source.uri}"):
            measured = read_measured(source, models, max_records=MAX_RECORDS)
            earlier = read_output_cost(source)
        _say_estimate(opened, options, context, measured, earlier)


def _say_estimate(
    opened: OpenedManifest,
    options: SimulationOptions,
    context: Context,
    measured: Measured,
    earlier: OutputCost,
) -> None:
    found = estimate_plan(opened.plan, opened.catalog, opened.config, measured, options.price)
    context.say("")
    for line in estimate_lines(found, measured, opened.config.costs.currency, earlier):
        context.say(f"  {line}".rstrip())


def estimate_lines(
    found: Estimate, measured: Measured, currency: str, earlier: OutputCost
) -> list[str]:
    """Return the table of an estimate, with the source of its times, and what it leaves out.

    Args:
        earlier: the cost of the runs whose records tell the times.
    """
    unknown = [
        f"{model}: device-hours not known without records; {RENDER_FIRST}"
        for model in found.unknown
    ]
    if not found.models:
        return unknown
    has_price = any(one.price is not None for one in found.models)
    columns = COLUMNS if has_price else tuple(name for name in COLUMNS if name != "cost")
    rows = [
        (
            one.model,
            f"{one.num_clips:,}",
            hours_text(one.device_hours),
            *(("" if one.price is None else price_text(one.price, currency),) * has_price),
            _source_text(one, found),
        )
        for one in found.models
    ]
    if len(rows) > 1:
        num_clips = sum(one.num_clips for one in found.models)
        whole = "" if found.price is None else price_text(found.price, currency)
        hours = hours_text(found.device_hours)
        rows.append(("in all", f"{num_clips:,}", hours, *((whole,) * has_price), ""))
    return [*table_lines(columns, rows, NUMBERS), *unknown, _besides(found, measured, earlier)]


def _source_text(one: ModelEstimate, found: Estimate) -> str:
    if one.source == "records":
        return f"{counted(found.num_records, 'record')}, {one.device}"
    if one.source == "scaled":
        return f"records of another size, scaled; {one.device}"
    return f"the cost model, since no record is there: {card_text(one.card)}"


def _besides(found: Estimate, measured: Measured, earlier: OutputCost) -> str:
    """Return what the table leaves out."""
    starts = ", ".join(
        f"{duration(start_s)} ({model}{'' if model in measured.starts_s else ', assumed'})"
        for model, start_s in found.starts_s.items()
    )
    share, runs = earlier.cost.wasted_share, counted(earlier.num_runs, "earlier run")
    wasted = "" if share is None else f" ({share:.1%} of the device-hours of {runs})"
    return (
        f"not in it: the start of each worker, {starts} of a device; failures{wasted}; idle "
        "devices at the end. --simulate N plays the run through"
    )


def _simulate(
    opened: OpenedManifest,
    options: SimulationOptions,
    conditions: Sequence[Conditions],
    context: Context,
    source: Store,
) -> None:
    """Print the outcome of the plan's run for each number of devices."""
    plan, catalog, config = opened.plan, opened.catalog, opened.config
    terminal = Console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("reading records", total=None)
        timings, measured = timings_of_plan(
            plan, catalog, source, lambda: progress.advance(task), config.workers
        )
        progress.update(task, visible=False)
        outcomes: list[Outcome] = []
        for farm in conditions:
            task = progress.add_task(
                f"{counted(farm.num_devices, 'device')}", total=plan.num_pending
            )
            outcomes.append(
                simulate_plan(plan, catalog, config, timings, farm, partial(progress.advance, task))
            )
    context.say("")
    price = _common_price(opened, measured) if options.price is None else options.price
    for line in simulation_lines(outcomes, timings, price):
        context.say(f"  {line}".rstrip())


def _common_price(opened: OpenedManifest, measured: Measured) -> float | None:
    """Return the price of each device of a simulated farm; None if its models differ in it."""
    costs, catalog = opened.config.costs, opened.catalog
    prices = {
        costs.price_of(device_for(bucket.model, catalog, opened.config, measured))
        for bucket in opened.plan.buckets
        if bucket.num_pending
    }
    return prices.pop() if len(prices) == 1 else None


def simulation_lines(
    outcomes: Sequence[Outcome], timings: Timings, price: float | None
) -> list[str]:
    """Return the sources of the times, and a table with a row for each number of devices."""
    headers = HEADERS if price is None else (*HEADERS, COST)
    rows = [cells(outcome, price) for outcome in outcomes]
    table = table_lines(headers, rows, [name for name in headers if name != "bottleneck"])
    return [*timings.sources, "", *table, *remarks(outcomes)]
