"""The curves of docs/measurements/parallel-cost: speed-up against bandwidth."""

from pathlib import Path
from typing import Any

from benchmarks.parallel_cost.tables import refusal
from jobs.bench.reporting.plots import DPI, add_legend, make_axes
from pipelines.cost.prediction import (
    H100,
    INTERCONNECTS,
    START_S,
    Interconnect,
    Work,
    break_even_bytes_per_s,
    speed_up,
)
from pipelines.parallel_config import ParallelConfig

DEGREE_COLOURS = {
    2: "#1f77b4",
    3: "#9467bd",
    4: "#2ca02c",
    5: "#bcbd22",
    6: "#ff7f0e",
    7: "#8c564b",
    8: "#d62728",
}


def draw_speed_ups(works: dict[str, Work], path: Path) -> None:
    """Plot the speed-up over the bandwidth.

    A panel per size, a line per ulysses degree, a dot at the break-even bandwidth.
    """
    figure, axes = make_axes(len(works), 4.2, 4.2)
    for axis, (name, work) in zip(axes, works.items(), strict=True):
        for link in INTERCONNECTS:
            axis.axvline(link.bytes_per_s / 1e9, color="#999999", linestyle=":", linewidth=0.9)
            style = {"rotation": 90, "ha": "right", "va": "top", "fontsize": 7, "color": "#555555"}
            axis.text(link.bytes_per_s / 1e9, 8.9, link.name, **style)
        for degree, colour in DEGREE_COLOURS.items():
            if not refusal(work, ParallelConfig(ulysses=degree)):
                _draw_speed_up(axis, work, ParallelConfig(ulysses=degree), colour)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1000"])
        axis.set(title=name, xlabel="GB/s out of each rank", ylabel="times as fast as one H100")
        axis.set(xlim=(0.4, 1000), ylim=(0, 9))
        axis.grid(alpha=0.3)
        add_legend(axis)
    figure.savefig(path, dpi=DPI)


def _draw_speed_up(axis: Any, work: Work, parallel: ParallelConfig, colour: str) -> None:
    # 0.4 to 1100 GB/s.
    links = [Interconnect("", 10 ** (8.6 + point / 20), START_S) for point in range(70)]
    rates = [link.bytes_per_s / 1e9 for link in links]
    gains = [speed_up(work, parallel, H100, link) for link in links]
    axis.plot(rates, gains, color=colour, label=f"{parallel.degree} devices")
    break_even = break_even_bytes_per_s(work, parallel, H100)
    if break_even is not None:
        axis.plot([break_even / 1e9], [1], "o", color=colour, zorder=3)
