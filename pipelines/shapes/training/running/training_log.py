"""The log of a training: one CSV row per measurement, and a plot of it."""

import csv
import time
from collections.abc import Callable
from pathlib import Path

LogStep = Callable[[str, int, float], None]  # stage, step from 0, loss

COLUMNS = ("stage", "step", "loss", "seconds")
ROW_EVERY_STEPS = 50


class TrainingLog:
    """A CSV file that gets the mean loss of every `ROW_EVERY_STEPS` steps, printed as well."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = time.monotonic()
        self._losses: list[float] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(",".join(COLUMNS) + "\n")

    def log_step(self, stage: str, step: int, loss: float) -> None:
        self._losses.append(loss)
        if (step + 1) % ROW_EVERY_STEPS:
            return
        row = (
            stage,
            step + 1,
            f"{sum(self._losses) / len(self._losses):.5f}",
            f"{time.monotonic() - self._started:.1f}",
        )
        self._losses.clear()
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)
        print("{:<12} step {:>6}  loss {}  {:>8} s".format(*row), flush=True)


def plot_losses(log_path: Path, plot_path: Path) -> None:
    """Plot loss over steps, one panel a stage, on a logarithmic axis; an empty log has no plot."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with log_path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    if not stages:
        return
    figure, axes = pyplot.subplots(1, len(stages), figsize=(5 * len(stages), 3.5), squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        points = [(int(row["step"]), float(row["loss"])) for row in rows if row["stage"] == stage]
        axis.semilogy(*zip(*points, strict=True))
        axis.set(title=stage, xlabel="step", ylabel="loss")
        axis.grid(visible=True, alpha=0.3)
    figure.tight_layout()
    figure.savefig(plot_path, dpi=100)
