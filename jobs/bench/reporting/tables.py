"""The rows as CSV and as the tables of the Markdown report."""

import csv
import io
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from jobs.bench.design.options import REPORT
from jobs.bench.measuring.judge_error import KindError
from jobs.bench.measuring.measures import Figures
from jobs.bench.measuring.results import POOLED, Row
from jobs.bench.measuring.statistics import Estimate
from jobs.bench.measuring.targets import FEW_STEPS, MANY_STEPS, Target, shown
from jobs.escaping import plain_document, plain_line
from jobs.whole_files import write_text_for

STATES = {True: "met", False: "**MISSED**", None: "not measured"}


def csv_text(rows: Iterable[Row]) -> str:
    """Return one line per row. An estimate has three columns: the value and its 95 % interval."""
    lines = [_csv_line(row) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(lines[0]) if lines else ["model"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return plain_document(stream.getvalue())


def _csv_line(row: Row) -> dict[str, str]:
    line = {
        "model": row.model,
        "steps": str(row.num_steps),
        "setting": row.setting.name,
        "method": row.setting.method,
        "parameters": " ".join(
            f"{name}={value}" for name, value in row.setting.fields if name != "method"
        ),
        "case": row.case,
        "attribute": row.attribute,
        "is_main": str(row.is_main),
    }
    for field in fields(Figures):
        line |= _csv_cells(field.name, getattr(row.figures, field.name))
    line |= _csv_cells("distance_floor", row.floor)
    for name, versus in (("nag", row.to_nag), ("cfg", row.to_cfg)):
        for field in fields(versus):
            line |= _csv_cells(f"{field.name}_to_{name}", getattr(versus, field.name))
    return line


def _csv_cells(name: str, value: Estimate | float) -> dict[str, str]:
    if isinstance(value, int):
        return {name: str(value)}
    if isinstance(value, float):
        return {name: _number(value)}
    return {
        name: _number(value.value),
        f"{name}_low": _number(value.low),
        f"{name}_high": _number(value.high),
    }


def _number(value: float) -> str:
    return "" if value != value else f"{value:.4f}"  # noqa: PLR0124 NaN


def method_table(rows: Iterable[Row]) -> str:
    """Return a table with all columns, one line per row."""
    head = (
        "model", "steps", "case", "attribute", "method", "clips", "suppression", "negated",
        "unread", "fidelity", "to none", "clean", "to none", "distance", "floor", "diversity",
        "commonest", "motion", "to none", "cost", "denoise s",
    )  # fmt: skip
    return markdown_table(head, [_method_cells(row) for row in rows])


def _method_cells(row: Row) -> tuple[str, ...]:
    figures = row.figures
    whole = figures.num_clips == figures.num_pairs == figures.num_tasks
    count = f"{figures.num_clips}" if whole else f"{figures.num_clips} of {figures.num_tasks}"
    if figures.num_pairs < figures.num_clips:
        count += f" ({figures.num_pairs} paired)"
    return (
        row.model, f"{row.num_steps}", row.case, row.attribute, row.setting.name, count,
        shown(figures.suppression), shown(figures.negated_share), shown(figures.unread_share),
        shown(figures.fidelity), shown(figures.fidelity_to_none),
        shown(figures.clean), shown(figures.clean_to_none),
        shown(figures.distance), _plain(row.floor), shown(figures.diversity),
        shown(figures.commonest),
        shown(figures.motion), shown(figures.motion_to_none),
        shown(figures.cost), _plain(figures.denoise_s),
    )  # fmt: skip


def _plain(value: float) -> str:
    return _number(value)[:5] or "-"


def curve_table(rows: Iterable[Row]) -> str:
    """Return a table of each method over the number of steps, pooled over the attributes."""
    head = (
        "model",
        "case",
        "method",
        "steps",
        "clips",
        "suppression",
        "fidelity",
        "clean",
        "motion",
        "cost",
    )
    pooled = [row for row in rows if row.attribute == POOLED]
    ordered = sorted(pooled, key=lambda row: (row.model, row.case, row.setting.name, row.num_steps))
    lines = [
        (
            row.model, row.case, row.setting.name, f"{row.num_steps}", f"{row.figures.num_clips}",
            shown(row.figures.suppression), shown(row.figures.fidelity), shown(row.figures.clean),
            shown(row.figures.motion), shown(row.figures.cost),
        )
        for row in ordered
    ]  # fmt: skip
    return markdown_table(head, lines)


def target_table(targets: Iterable[Target]) -> str:
    head = ("model", "steps", "case", "target", "goal", "found", "")
    lines = [
        (t.model, f"{t.num_steps}", t.case, t.name, t.goal, t.found, STATES[t.is_met])
        for t in targets
    ]
    return (
        markdown_table(head, lines)
        if lines
        else f"None: targets are for {FEW_STEPS} and {MANY_STEPS} steps.\n"
    )


def judge_table(errors: Iterable[KindError]) -> str:
    head = ("clips that are", "clips", "called clean", "all attributes right")
    return markdown_table(
        head,
        [
            (error.kind, f"{error.num_clips}", shown(error.clean), shown(error.right))
            for error in errors
        ],
    )


def markdown_table(head: tuple[str, ...], lines: Iterable[tuple[str, ...]]) -> str:
    rows = [head, tuple("---" for _ in head), *lines]
    return "\n".join(f"| {' | '.join(map(plain_line, cells))} |" for cells in rows) + "\n"


def write_page(path: Path, sections: Iterable[str]) -> None:
    """Write a Markdown page of these sections, which may hold names from strangers."""
    text = "\n\n".join(section.rstrip() for section in sections)
    write_text_for(REPORT, path, plain_document(f"{text}\n"))
