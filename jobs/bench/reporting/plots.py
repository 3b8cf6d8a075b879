"""The plots of the report. Matplotlib is an optional extra, checked before anything is rendered."""

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.bench.design.options import REPORT
from jobs.bench.measuring.results import POOLED, Row
from jobs.bench.measuring.statistics import Estimate
from jobs.errors import RefusedError
from jobs.whole_files import written_for

if TYPE_CHECKING:
    import numpy as np

COLOURS = {
    "none": "#555555",
    "cfg": "#d62728",
    "nag": "#1f77b4",
    "vsf": "#2ca02c",
    "nasa": "#9467bd",
    "cfg+nag": "#ff7f0e",
}
MAX_COLUMNS = 4
DPI = 110


def require_matplotlib() -> None:
    """Raise RefusedError, with the remedy, if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise RefusedError("the report's plots need matplotlib: pip install 'nagfarm[bench]'")


def make_axes(num_panels: int, width: float, height: float) -> tuple[Any, Sequence[Any]]:
    """Return a figure that needs no display, and its panels, four in a row; sizes in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_columns = min(num_panels, MAX_COLUMNS)
    num_rows = -(-num_panels // num_columns)
    figure = Figure(figsize=(width * num_columns, height * num_rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, num_columns, squeeze=False).flatten()
    for unused in axes[num_panels:]:
        unused.set_axis_off()
    return figure, [*axes[:num_panels]]


def _save(figure: Any, path: Path) -> None:
    with written_for(REPORT, path) as unfinished:
        figure.savefig(unfinished, dpi=DPI)


def draw_tradeoff(rows: Iterable[Row], path: Path) -> None:
    """Draw suppression against fidelity: a panel per model and case, a marker per method."""
    panels: dict[tuple[str, int, str], list[Row]] = {}
    for row in rows:
        if row.is_main and row.attribute == POOLED:
            panels.setdefault((row.model, row.num_steps, row.case), []).append(row)
    figure, axes = make_axes(max(len(panels), 1), 4.2, 4.2)
    for axis, ((model, num_steps, case), cells) in zip(axes, panels.items(), strict=False):
        for row in cells:
            x, y = row.figures.fidelity, row.figures.suppression
            if x.is_defined and y.is_defined:
                style = {
                    "fmt": "o",
                    "color": COLOURS[row.setting.method],
                    "label": row.setting.name,
                }
                axis.errorbar(
                    x.value,
                    y.value,
                    xerr=[[side] for side in _bars(x)],
                    yerr=[[side] for side in _bars(y)],
                    capsize=2,
                    **style,
                )
        axis.set(
            title=f"{model}, {num_steps} steps, {case}", xlabel="fidelity", ylabel="suppression"
        )
        axis.set_ylim(top=1.03)
        axis.grid(alpha=0.3)
        add_legend(axis)
    _save(figure, path)


def draw_clean_curve(rows: Iterable[Row], path: Path) -> None:
    """Draw clean against steps in the open case: a panel per model, a line per method."""
    panels: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        if row.attribute == POOLED and row.case == "open":
            panels.setdefault(row.model, {}).setdefault(row.setting.name, []).append(row)
    figure, axes = make_axes(max(len(panels), 1), 4.2, 4.0)
    for axis, (model, lines) in zip(axes, panels.items(), strict=False):
        steps: set[int] = set()
        for name, cells in lines.items():
            points = sorted(
                (row.num_steps, row.figures.clean) for row in cells if row.figures.clean.is_defined
            )
            if not points:
                continue
            steps.update(num_steps for num_steps, _ in points)
            colour = COLOURS[cells[0].setting.method]
            axis.plot(
                *zip(*((x, y.value) for x, y in points), strict=True),
                "o-",
                color=colour,
                label=name,
            )
            xs, lows, highs = zip(*((x, y.low, y.high) for x, y in points), strict=True)
            axis.fill_between(xs, lows, highs, color=colour, alpha=0.1)
        axis.set_xscale("log")
        axis.set_xticks(sorted(steps), [str(num_steps) for num_steps in sorted(steps)])
        axis.minorticks_off()
        axis.set(title=model, xlabel="steps", ylabel="clean", ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
        add_legend(axis)
    _save(figure, path)


def draw_heat_maps(
    title: str,
    axes_names: tuple[str, str],
    ticks: tuple[list[str], list[str]],
    maps: dict[str, "np.ndarray"],
    path: Path,
) -> None:
    """Draw one heat map for each figure of a two-dimensional slice, side by side.

    Args:
        title: the title of the whole picture.
        axes_names: the names of x and y.
        ticks: the ticks of x and y.
        maps: figure name to values, (y, x); NaN is left white.
        path: the PNG to write.
    """
    figure, axes = make_axes(len(maps), 1.6 + 0.75 * len(ticks[0]), 1.5 + 0.6 * len(ticks[1]))
    for axis, (name, values) in zip(axes, maps.items(), strict=True):
        image = axis.imshow(values, vmin=0, vmax=1, cmap="viridis", origin="lower", aspect="auto")
        axis.set_xticks(range(len(ticks[0])), ticks[0])
        axis.set_yticks(range(len(ticks[1])), ticks[1])
        axis.set(title=name, xlabel=axes_names[0], ylabel=axes_names[1])
        for (y, x), value in _cells(values):
            axis.text(
                x,
                y,
                f"{value:.2f}",
                ha="center",
                va="center",
                color="white" if value < 0.6 else "black",
            )
        figure.colorbar(image, ax=axis)
    figure.suptitle(title)
    _save(figure, path)


def draw_lines(
    title: str, name: str, ticks: list[str], lines: dict[str, list[Estimate]], path: Path
) -> None:
    """Draw a one-dimensional slice: a line per figure, over settings that need not be numbers."""
    figure, (axis,) = make_axes(1, max(5.0, 1.1 * len(ticks)), 3.8)
    for label, estimates in lines.items():
        points = [
            (index, estimate) for index, estimate in enumerate(estimates) if estimate.is_defined
        ]
        if points:
            xs, ys = [index for index, _ in points], [estimate.value for _, estimate in points]
            downs, ups = zip(*(_bars(estimate) for _, estimate in points), strict=True)
            axis.errorbar(xs, ys, yerr=[downs, ups], fmt="o-", capsize=2, label=label)
    axis.set_xticks(range(len(ticks)), ticks)
    axis.set(title=title, xlabel=name, ylim=(-0.05, 1.05))
    axis.grid(alpha=0.3)
    add_legend(axis)
    _save(figure, path)


def add_legend(axis: Any) -> None:
    """Add a legend unless the panel is empty: matplotlib warns about empty legends."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8)


def _cells(values: "np.ndarray") -> Iterable[tuple[tuple[int, int], float]]:
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            if value == value:  # noqa: PLR0124 not NaN
                yield (y, x), float(value)


def _bars(estimate: Estimate) -> tuple[float, float]:
    """Return the distances from the value down and up to the ends of the interval."""
    return max(0.0, estimate.value - estimate.low), max(0.0, estimate.high - estimate.value)
