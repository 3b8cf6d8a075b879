"""The benchmark of parameters: its clips and its report."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from jobs.bench.design.blocks import Block, Setting, interleaved_tasks
from jobs.bench.design.options import PRECISION, REPORT, BenchOptions
from jobs.bench.design.precision import OTHER_DTYPE, variant_name
from jobs.bench.design.slices import PRECISION_METHODS, SLICES, Slice, slice_setting, sweep_settings
from jobs.bench.measuring.results import Row
from jobs.bench.measuring.statistics import UNDEFINED, Estimate
from jobs.bench.measuring.targets import shown
from jobs.bench.negatives import method_settings
from jobs.bench.reporting.plots import draw_heat_maps, draw_lines
from jobs.bench.reporting.tables import csv_text, markdown_table, write_page
from jobs.whole_files import write_text_for
from pipelines.catalog.model_config import ModelConfig

MAPPED = ("suppression", "clean", "fidelity")  # the figures in the plots
EXPLANATION = """\
Each slice varies one or two parameters; all others are as in the model's YAML. The prompts leave
the negated attribute open. All attributes are pooled, and all settings have the same tasks, which
are not those of `nagfarm bench negatives`. The columns are explained there; [ ] is a 95 % interval.
"""
CellKey = tuple[str, int]  # model, steps


def chosen_slices(options: BenchOptions) -> tuple[Slice, ...]:
    return tuple(a_slice for a_slice in SLICES if a_slice.name in options.slices)


def parameters_blocks(options: BenchOptions, models: Iterable[ModelConfig]) -> tuple[Block, ...]:
    """Return blocks for each model and number of steps, also in the model's other precision."""
    num_tasks = -(-options.sizes.clips // len(options.attributes))  # per attribute, rounded up
    tasks = interleaved_tasks(options.attributes, ("open",), num_tasks, "choose")
    blocks: list[Block] = []
    for config in models:
        for num_steps in sweep_steps(options, config):
            settings = sweep_settings(config, num_steps, chosen_slices(options))
            if PRECISION in options.slices:
                settings = tuple(
                    dict.fromkeys((*settings, *method_settings(config, PRECISION_METHODS)))
                )
                other = method_settings(config, PRECISION_METHODS)
                blocks.append(Block(variant_name(config), num_steps, True, other, tasks))
            blocks.append(Block(config.name, num_steps, True, settings, tasks))
    return tuple(blocks)


def sweep_steps(options: BenchOptions, config: ModelConfig) -> tuple[int, ...]:
    """Return the numbers of steps asked for, or else the main one."""
    return options.steps or options.steps_of(config)[:1]


def write_parameters_report(
    folder: Path,
    rows: list[Row],
    options: BenchOptions,
    models: Iterable[ModelConfig],
    notes: list[str],
) -> None:
    """Write parameters.csv, parameters.md and a plot for each slice."""
    write_text_for(REPORT, folder / "parameters.csv", csv_text(rows))
    by_cell: dict[CellKey, dict[str, Row]] = {}
    for row in rows:
        by_cell.setdefault((row.model, row.num_steps), {})[row.setting.name] = row
    sections = ["# Parameters, measured", EXPLANATION.strip()]
    if notes:
        sections.append(f"Notes: {'; '.join(notes)}.")
    for config in models:
        for num_steps in sweep_steps(options, config):
            sections.append(f"## {config.name}, {num_steps} steps")
            cell = by_cell[config.name, num_steps]
            for a_slice in chosen_slices(options):
                picture = f"{config.name}-{num_steps}-{a_slice.name}.png"
                title = f"{config.name}, {num_steps} steps, {a_slice.method}"
                draw_slice(config, a_slice, cell, title, folder / picture)
                table = setting_table(_slice_rows(config, a_slice, cell))
                sections += [f"### {a_slice.name}", table, f"![{a_slice.name}]({picture})"]
            if PRECISION in options.slices:
                other = by_cell[variant_name(config), num_steps]
                lines = [*_named(config.dtype, cell), *_named(OTHER_DTYPE[config.dtype], other)]
                sections += [f"### {PRECISION}", setting_table(lines)]
    write_page(folder / "parameters.md", sections)


def _named(dtype: str, cell: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    return ((f"{dtype}, {method}", cell[method]) for method in PRECISION_METHODS)


def _slice_rows(
    config: ModelConfig, a_slice: Slice, cell: Mapping[str, Row]
) -> Iterator[tuple[str, Row]]:
    """Return the rows of no guidance and of the slice's settings that can be rendered."""
    yield "none", cell["none"]
    for setting in _settings(config, a_slice).values():
        if setting.name in cell:
            yield setting.name, cell[setting.name]


def _settings(config: ModelConfig, a_slice: Slice) -> dict[tuple[int, int], Setting]:
    """Return the settings by (y, x)."""
    ys = range(len(a_slice.y.points)) if a_slice.y is not None else (None,)
    return {
        (y or 0, x): slice_setting(config, a_slice, x, y)
        for y in ys
        for x in range(len(a_slice.x.points))
    }


def setting_table(lines: Iterable[tuple[str, Row]]) -> str:
    head = (
        "setting",
        "clips",
        "suppression",
        "fidelity",
        "clean",
        "diversity",
        "motion",
        "distance",
        "cost",
    )
    return markdown_table(
        head,
        [
            (
                name,
                f"{row.figures.num_clips}",
                *(shown(getattr(row.figures, column)) for column in head[2:]),
            )
            for name, row in lines
        ],
    )


def draw_slice(
    config: ModelConfig, a_slice: Slice, cell: Mapping[str, Row], title: str, path: Path
) -> None:
    """Draw heat maps of a slice with two axes, or lines of a slice with one."""
    settings = _settings(config, a_slice)

    def figure(name: str, place: tuple[int, int]) -> Estimate:
        row = cell.get(settings[place].name)
        return getattr(row.figures, name) if row is not None else UNDEFINED

    if a_slice.y is None:
        lines = {name: [figure(name, place) for place in settings] for name in MAPPED}
        draw_lines(title, a_slice.x.name, list(a_slice.x.ticks), lines, path)
        return
    maps = {
        name: np.array(
            [
                [figure(name, (y, x)).value for x in range(len(a_slice.x.points))]
                for y in range(len(a_slice.y.points))
            ]
        )
        for name in MAPPED
    }
    ticks = list(a_slice.x.ticks), list(a_slice.y.ticks)
    draw_heat_maps(title, (a_slice.x.name, a_slice.y.name), ticks, maps, path)
