"""The paper's table from scored clips: each figure by setting, and its difference to the baseline.

A difference is paired by prompt, over the prompts that both settings have rendered and scored.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np

from jobs.bench.measuring.statistics import (
    Estimate,
    Numbers,
    difference,
    median_ratio,
    suppression,
)
from jobs.bench.paper.design import Setting
from jobs.records.schema import ClipRecord
from jobs.records.scores.score_record import ScoreRecord
from jobs.scoring.figures import Figure, GroupFigures, meaning_of
from pipelines.scoring.measures import MeasureSpec

BELOW = (
    "Below a figure stands its difference to the first method of the same model and steps, with "
    "the 95 % interval of a bootstrap paired by prompt; suppression is the relative fall of the "
    "share that shows the negative prompt, 1 for a fall to nothing. `cost` is the denoise time "
    "over that of the first method, the median over prompts that one run rendered both ways."
)
SEEN = "negative_seen"
LOWER_IS_BETTER = ("negative", SEEN, "distance", "flicker")


@dataclass(frozen=True)
class SettingFigures:
    """A row of the table.

    Args:
        num_planned: clips of the design.
        figures: the figures, as `nagfarm score` gives them.
        differences: difference of each figure to the baseline of the same model and steps, by
            title; empty for the baseline itself.
        suppression: relative fall of each share of clips that show the negative prompt, against the
            baseline: 1 is a fall to nothing.
        cost: denoise seconds over the baseline's, the median over prompts that one run rendered
            both ways.
    """

    setting: Setting
    num_planned: int
    num_clips: int
    figures: tuple[Figure, ...]
    differences: Mapping[str, Estimate]
    suppression: Mapping[str, Estimate]
    cost: Estimate | None


class PairedFigures:
    """The figures of every clip by setting and prompt."""

    def __init__(self) -> None:
        self._values: dict[Setting, dict[str, dict[str, float]]] = {}
        self._costs: dict[Setting, dict[tuple[str, str], float]] = {}

    def add(
        self, setting: Setting, prompt: str, record: ClipRecord, scores: Iterable[ScoreRecord]
    ) -> None:
        """Add a clip."""
        by_title = self._values.setdefault(setting, {})
        for score in scores:
            for name, value in score.figures.items():
                by_title.setdefault(f"{score.measure}.{name}", {})[prompt] = value
        denoise_s = record.stage_totals_s.get("denoise", 0.0)
        self._costs.setdefault(setting, {})[prompt, record.run_id] = denoise_s

    def differences(self, setting: Setting, baseline: Setting) -> dict[str, Estimate]:
        """Return ours minus the baseline's, by title."""
        return {title: difference(*pair) for title, pair in self._pairs(setting, baseline)}

    def suppression(self, setting: Setting, baseline: Setting) -> dict[str, Estimate]:
        """Return the relative fall of each share of clips that show the negative prompt."""
        return {
            title: suppression(*pair)
            for title, pair in self._pairs(setting, baseline)
            if title.endswith(f".{SEEN}")
        }

    def _pairs(
        self, setting: Setting, baseline: Setting
    ) -> Iterator[tuple[str, tuple[Numbers, Numbers]]]:
        """Yield ours and the baseline's by title, over the prompts that both have."""
        theirs = self._values.get(baseline, {})
        for title, ours in self._values.get(setting, {}).items():
            both = [prompt for prompt in ours if prompt in theirs.get(title, {})]
            if both:
                our_values = np.array([ours[prompt] for prompt in both])
                yield title, (our_values, np.array([theirs[title][prompt] for prompt in both]))

    def cost(self, setting: Setting, baseline: Setting) -> Estimate | None:
        """Return our denoise seconds over the baseline's; None if no run rendered a pair."""
        ours, theirs = self._costs.get(setting, {}), self._costs.get(baseline, {})
        pairs = [key for key in ours if theirs.get(key, 0.0) > 0]
        if not pairs:
            return None
        return median_ratio(
            np.array([ours[key] for key in pairs]), np.array([theirs[key] for key in pairs])
        )


def table_rows(
    settings: Sequence[Setting],
    num_planned: Mapping[Setting, int],
    groups: Iterable[GroupFigures],
    paired: PairedFigures,
) -> list[SettingFigures]:
    """Return the rows of the table, in the order of the settings."""
    by_group = {group.group: group for group in groups}
    baselines = {(one.model, one.num_steps): one for one in reversed(settings)}
    rows: list[SettingFigures] = []
    for setting in settings:
        own = by_group.get(setting.group)
        baseline = baselines[setting.model, setting.num_steps]
        is_baseline = setting == baseline
        rows.append(
            SettingFigures(
                setting,
                num_planned[setting],
                own.num_clips if own else 0,
                own.figures if own else (),
                {} if is_baseline else paired.differences(setting, baseline),
                {} if is_baseline else paired.suppression(setting, baseline),
                None if is_baseline else paired.cost(setting, baseline),
            )
        )
    return rows


def markdown(rows: Sequence[SettingFigures], specs: Sequence[MeasureSpec], command: str) -> str:
    """Return the report: the table, what its columns mean, and what was measured with which."""
    figures = {figure.title: figure for row in rows for figure in row.figures}
    heads = ["model", "steps", "method", "clips", *figures, "cost"]
    lines = [
        "# The paper's measures",
        "",
        f"Made by `{command}` with nagfarm {metadata.version('nagfarm')}.",
        "",
        f"| {' | '.join(heads)} |",
        f"|{'---|' * len(heads)}",
        *(f"| {' | '.join(_cells(row, list(figures)))} |" for row in rows),
        "",
        BELOW,
        "",
        *(
            f"- `{title}`: {meaning_of(figure)}{_direction(figure)}"
            for title, figure in figures.items()
        ),
        "",
        *(
            f"- measure `{spec.name}`: "
            + (f"{spec.source} at {spec.revision}" if spec.source else "no weights")
            + (f", {spec.num_stills} frames of a clip" if spec.num_stills else ", all frames")
            for spec in specs
        ),
    ]
    unfinished = [row for row in rows if row.num_clips < row.num_planned]
    if unfinished:
        lines += ["", *(_unfinished(row) for row in unfinished)]
    return "\n".join(lines) + "\n"


def _direction(figure: Figure) -> str:
    return "; lower is better" if figure.name in LOWER_IS_BETTER and "lower" not in meaning_of(
        figure
    ) else ""  # fmt: skip


def _unfinished(row: SettingFigures) -> str:
    return (
        f"- unfinished: {', '.join(row.setting.group)}: {row.num_clips:,} of "
        f"{row.num_planned:,} clips"
    )


def _cells(row: SettingFigures, titles: Sequence[str]) -> list[str]:
    own = {figure.title: figure for figure in row.figures}
    cells = [*row.setting.group, f"{row.num_clips:,}"]
    for title in titles:
        text = "" if title not in own else _number(own[title].mean)
        if title in row.differences:
            text += f"<br>{_interval(row.differences[title])}"
        if title in row.suppression and row.suppression[title].is_defined:
            text += f"<br>suppression {_interval(row.suppression[title])}"
        cells.append(text)
    return [*cells, "" if row.cost is None else f"{row.cost.value:.3g}"]


def _number(value: float) -> str:
    return f"{value:.4g}"


def _interval(estimate: Estimate) -> str:
    if np.isnan(estimate.low):
        return f"{estimate.value:+.3g}"
    return f"{estimate.value:+.3g} ({estimate.low:+.3g} to {estimate.high:+.3g})"


def document(
    rows: Sequence[SettingFigures], specs: Sequence[MeasureSpec], command: str
) -> dict[str, Any]:
    """Return the same as JSON values; a number that is not defined is null."""
    return {
        "command": command,
        "nagfarm_version": metadata.version("nagfarm"),
        "measures": [asdict(spec) for spec in specs],
        "rows": [
            {
                **asdict(row.setting),
                "num_planned": row.num_planned,
                "num_clips": row.num_clips,
                "figures": {
                    figure.title: {
                        "mean": figure.mean,
                        "half_width": figure.half_width,
                        "num": figure.num,
                    }
                    for figure in row.figures
                },
                "differences": {
                    title: _defined(estimate) for title, estimate in row.differences.items()
                },
                "suppression": {
                    title: _defined(estimate) for title, estimate in row.suppression.items()
                },
                "cost": None if row.cost is None else _defined(row.cost),
            }
            for row in rows
        ],
    }


def _defined(estimate: Estimate) -> dict[str, float | None]:
    return {
        name: None if np.isnan(value) else float(value) for name, value in asdict(estimate).items()
    }


def json_text(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
