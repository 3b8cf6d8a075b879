"""Outcomes of simulated runs as the cells of a table and as sentences. Loads without torch."""

from collections.abc import Sequence

from jobs.simulation.outcome import Outcome
from jobs.text import counted

HEADERS = ("devices", "wall time", "busy", "clips an hour", "bottleneck")
COST = "cost"


def cells(outcome: Outcome, price: float | None) -> tuple[str, ...]:
    """Return the row of an outcome.

    Args:
        price: price of a device hour; None leaves the cost out.
    """
    row = (
        f"{outcome.num_devices:,}",
        wall_time(outcome.wall_s),
        f"{outcome.busy_share:.0%}",
        f"{outcome.clips_per_hour:,.0f}",
        outcome.bottleneck,
    )
    return row if price is None else (*row, f"{outcome.device_hours * price:,.2f}")


def remarks(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a line for each outcome with lost workers, quarantined clips or an early end."""
    lines: list[str] = []
    for outcome in outcomes:
        devices = counted(outcome.num_devices, "device")
        if outcome.num_workers_lost:
            clips = f", {counted(outcome.num_quarantined, 'clip')} quarantined"
            lines.append(
                f"{devices}: {counted(outcome.num_workers_lost, 'worker')} lost"
                + (clips if outcome.num_quarantined else "")
            )
        if outcome.halt is not None:
            lines.append(f"{devices}: the run would stop: {outcome.halt}")
    return lines


def wall_time(seconds: float) -> str:
    """Return a duration with a decimal, in the largest unit of which there are at least two."""
    for unit, size_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size_s:
            return f"{seconds / size_s:.1f} {unit}"
    return f"{seconds:.1f} s"
