"""The figures of scored clips, as a table for people and as JSON for programs."""

import json
from dataclasses import asdict

from jobs.cli.pattern.wording import table_lines
from jobs.scoring.figures import Figure, GroupFigures, meaning_of
from jobs.scoring.scoring_run import Measures
from jobs.scoring.scoring_run import Progress as Counts


def figure_lines(axes: list[str], groups: list[GroupFigures]) -> list[str]:
    """Return a table: a row a group, a column a figure; then the meaning of each figure."""
    figures = {figure.title: figure for group in groups for figure in group.figures}
    if not figures:
        return []
    rows = [
        (
            *group.group,
            f"{group.num_clips:,}",
            *(_cell(one) for one in _in_order(group, list(figures))),
        )
        for group in groups
    ]
    columns = (*axes, "clips", *figures)
    lines = table_lines(columns, rows, numbers=columns[len(axes) :])
    meanings = [f"{title}: {meaning_of(figure)}" for title, figure in figures.items()]
    return [*lines, "", *meanings, ""]


def _in_order(group: GroupFigures, titles: list[str]) -> list[Figure | None]:
    own = {figure.title: figure for figure in group.figures}
    return [own.get(title) for title in titles]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    half = "" if figure.half_width is None else f" ±{figure.half_width:.2g}"
    return f"{figure.mean:.4g}{half}"


def figures_json(
    uri: str,
    measures: Measures,
    axes: list[str],
    groups: list[GroupFigures],
    counts: Counts,
) -> str:
    """Return the figures as one JSON document."""
    document = {
        "uri": uri,
        "measures": [asdict(spec) for spec in measures.found],
        "axes": axes,
        "num_clips": counts.num_clips,
        "num_scored": counts.num_scored,
        "num_written": counts.num_written,
        "num_trouble": counts.num_trouble,
        "groups": [
            {
                "group": dict(zip(axes, group.group, strict=True)),
                "num_clips": group.num_clips,
                "figures": {
                    figure.title: {
                        "mean": figure.mean,
                        "half_width": figure.half_width,
                        "num": figure.num,
                    }
                    for figure in group.figures
                },
            }
            for group in groups
        ],
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False)
