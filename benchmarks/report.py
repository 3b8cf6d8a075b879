"""The result of a benchmark: figures with floor and goal, the machine, JSON and Markdown.

The JSON holds no path and no host name. A figure with a margin is compared by `benchmarks.guard`
with the committed one. Loads without torch.
"""

import json
import math
import os
import platform
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

Cases = Mapping[str, Any]  # the JSON value of each measured case, by the case's name

ROOT = Path(__file__).parents[1]
MEASUREMENTS = ROOT / "docs" / "measurements"


@dataclass(frozen=True)
class Figure:
    """One number of a result, as a rule a ratio of two values of the same run.

    Args:
        name: unique in the benchmark, such as "nag / none, Wan 1.3B, 832x480x81".
        floor: best value that is possible by the work counted, or by the parts measured alone.
        goal: value that the project promises: at most, or at least if `is_higher_better`.
        unit: empty for a ratio.
        margin: share of the committed value by which the figure may become worse before the guard
            fails. None, not compared, for what differs between machines, such as seconds.
    """

    name: str
    value: float
    floor: float | None = None
    goal: float | None = None
    is_higher_better: bool = False
    unit: str = ""
    margin: float | None = None

    @property
    def is_met(self) -> bool | None:
        """Return True if the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.is_higher_better else self.value <= self.goal

    def limit(self, committed: float) -> float:
        """Return the worst value that the guard passes beside this committed one."""
        share = self.margin or 0.0
        return committed * (1 - share if self.is_higher_better else 1 + share)

    def is_worse(self, committed: float) -> bool:
        """Return whether the value is beyond the margin; NaN is."""
        limit = self.limit(committed)
        return not (self.value >= limit if self.is_higher_better else self.value <= limit)


def shown(value: float | None, unit: str = "") -> str:
    """Return a number with three digits and more where it is close to 1, or "" for None."""
    if value is None:
        return ""
    size = abs(value)
    digits = (
        f"{value:,.0f}" if size >= 1000 else f"{value:.3f}" if 0.1 <= size < 10 else f"{value:.4g}"
    )
    return f"{digits} {unit}".rstrip()


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose first column is aligned left and whose others are aligned right."""
    marks = ("---", *("---:" for _ in head[1:]))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, marks, *rows)) + "\n"


def figures_table(figures: Iterable[Figure]) -> str:
    return markdown_table(
        ("figure", "measured", "floor", "goal", "", "margin of the guard"),
        [
            (
                figure.name,
                shown(figure.value, figure.unit),
                shown(figure.floor, figure.unit),
                (
                    ""
                    if figure.goal is None
                    else "at least "
                    if figure.is_higher_better
                    else "at most "
                )
                + shown(figure.goal, figure.unit),
                {True: "met", False: "**MISSED**", None: ""}[figure.is_met],
                "" if figure.margin is None else f"{figure.margin:.0%}",
            )
            for figure in figures
        ],
    )


def describe_machine(with_gpu: bool = False) -> str:
    """Return the machine in words: cores, processor, memory, system, and its first GPU."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    words = [
        f"{cores} CPU cores ({_processor()})",
        f"{memory_bytes / 2**30:.0f} GiB memory",
        platform.system(),
    ]
    if with_gpu:
        import torch

        words.insert(0, f"one {torch.cuda.get_device_name()}")
    return ", ".join(words)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe_versions(libraries: Iterable[str]) -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in libraries}


@dataclass(frozen=True)
class Result:
    """A benchmark's result, complete or not.

    Args:
        name: module under `benchmarks`.
        arguments: options that a further run needs to measure the same.
        machine: in words, from `describe_machine`.
        date: UTC day of the latest case, such as 2026-11-28.
        figures: by name, computed from `cases`.
        loads: processes that ran or waited for a core in the minute before each case, also those
            of other programs.
        niceness: priority of the benchmark in each case, as its process had it; below 0 it goes
            before other programs. Missing for cases that were measured before it was noted.
    """

    name: str
    arguments: list[str]
    machine: str
    versions: dict[str, str]
    date: str
    cases: dict[str, Any]
    figures: dict[str, Figure]
    loads: dict[str, float] = field(default_factory=dict[str, float])
    niceness: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def command(self) -> str:
        return " ".join(["python", "-m", f"benchmarks.{self.name}", *self.arguments])

    @classmethod
    def read(cls, path: Path) -> "Result":
        document = json.loads(path.read_text(encoding="utf-8"))
        document.pop("command")
        figures = {
            name: Figure(name, **_values(fields))
            for name, fields in document.pop("figures").items()
        }
        return cls(**document, figures=figures)

    def write(self, path: Path) -> None:
        """Write the JSON in one step, so that an interrupted run leaves the cases before."""
        document: dict[str, Any] = {"command": self.command, **asdict(self)}
        document["figures"] = {
            name: {field: value for field, value in fields.items() if field != "name"}
            for name, fields in document["figures"].items()
        }
        unfinished = path.with_suffix(".json.unfinished")
        text = json.dumps(_without_nan(document), indent=2, allow_nan=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.replace(path)

    def page(self, title: str, body: str) -> str:
        """Return the Markdown page around a benchmark's own text and tables."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        table = figures_table(self.figures.values()) if self.figures else ""
        origin = (
            f"`{self.command}` writes this page and the JSON beside it. Measured on {self.date}: "
            f"{self.machine}; {versions}."
        )
        if loads := self.loads.values():
            origin += (
                f" In the minute before a case, {min(loads):.0f} to {max(loads):.0f} processes ran "
                "or waited for a core (load average)."
            )
        if self.niceness and self.niceness.keys() >= self.cases.keys():
            low, high = min(self.niceness.values()), max(self.niceness.values())
            origin += f" The benchmark ran with `nice -n {low}`"
            origin += "." if low == high else f" to `nice -n {high}`, by case."
        return f"""\
# {title}

{textwrap.fill(origin, 100, break_long_words=False, break_on_hyphens=False)}

{body.strip()}
""" + (f"\n## Figures\n\nRatios compare values of one run.\n\n{table}" if table else "")


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a figure; JSON has null in the place of NaN."""
    known = {name: value for name, value in fields.items() if value is not None}
    return {"value": math.nan, **known}


def _without_nan(value: Any) -> Any:
    """Return a JSON value in which NaN and infinity, which JSON lacks, are None."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _without_nan(entry) for name, entry in value.items()}
    return [_without_nan(entry) for entry in value] if isinstance(value, list | tuple) else value
