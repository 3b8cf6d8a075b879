"""The benchmark of negative prompts: what it renders, and the report that it writes."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from jobs.bench.design.blocks import Block, Setting, interleaved_tasks
from jobs.bench.design.options import DEFAULT_CFG_SCALE, BenchOptions
from jobs.bench.measuring.judge_error import KindError
from jobs.bench.measuring.results import POOLED, Row
from jobs.bench.measuring.targets import check_targets
from jobs.bench.reporting.plots import draw_clean_curve, draw_tradeoff
from jobs.bench.reporting.tables import (
    csv_text,
    curve_table,
    judge_table,
    markdown_table,
    method_table,
    target_table,
)
from pipelines.catalog.model_config import ModelConfig
from pipelines.shapes.evaluation.negation import Case

SHEET = "negatives-sheet.png"
EXPLANATION = """\
Every figure is on the same tasks (prompt, negative prompt, seed) for all methods; [ ] is a 95 % interval. In the *open*
case the prompt leaves the negated attribute open; in the *hard* case it names the very value that is negated.

- **suppression**: how far the share of clips that show the negated value falls against no guidance; 1 is to nothing.
- **negated**: that share itself; **unread**: share of clips too broken for that attribute to be read. They count as not
  showing it, so suppression that comes with them is worth less.
- **fidelity**: share of clips in which everything is there that the prompt names, but for what is negated.
- **clean**: share of clips that are members of the world at all: one whole shape, evenly coloured, on an even path.
- **to none**: the paired difference to no guidance; for motion the ratio.
- **distance**: Frechet distance to true clips that answer the same tasks right, in the features of a frozen
  autoencoder; **floor** is that of two independent sets of true clips, as many.
- **diversity**: entropy of what is left open, over the largest possible.
- **motion**: displacement along the direction that the prompt names, over the true one.
- **cost**: denoise seconds over those without guidance, median over the tasks that one run rendered both ways.
"""
JUDGE_EXPLANATION = """\
What the judge says of true clips and of spoilt ones, through H.264. A frozen clip is a clean member of the world, one
that stands still; only its motion is wrong. A clip between two shapes or two colours has no right reading.
"""


def method_settings(config: ModelConfig, methods: Iterable[str]) -> tuple[Setting, ...]:
    """Each method with the strengths of the model's YAML."""
    return tuple(Setting(method, method_fields(config, method)) for method in methods)


def method_fields(config: ModelConfig, method: str) -> tuple[tuple[str, str | float], ...]:
    """A manifest's fields for a method; guidance has a scale also where the model's YAML knows none."""
    if method in ("cfg", "cfg+nag") and config.sampling.guidance_scale == 1:
        return ("method", method), ("guidance_scale", DEFAULT_CFG_SCALE)
    return (("method", method),)


def negatives_blocks(options: BenchOptions, models: Iterable[ModelConfig]) -> tuple[Block, ...]:
    """The main cells of every model, then its other numbers of steps, where the open case alone is rendered."""
    blocks: list[Block] = []
    for config in models:
        settings = method_settings(config, options.methods)
        main, *others = options.steps_of(config)
        cases = cast("tuple[Case, ...]", options.cases)
        tasks = interleaved_tasks(options.attributes, cases, options.sizes.clips)
        blocks.append(Block(config.name, main, True, settings, tasks))
        if options.sizes.curve_clips:
            tasks = interleaved_tasks(options.attributes, ("open",), options.sizes.curve_clips)
            blocks += [
                Block(config.name, num_steps, False, settings, tasks) for num_steps in others
            ]
    return tuple(blocks)


def write_negatives_report(
    folder: Path,
    rows: list[Row],
    errors: list[KindError],
    models: Iterable[ModelConfig],
    notes: list[str],
) -> None:
    """Writes negatives.csv, negatives.md and the plots, of what is rendered; the contact sheet needs clips."""
    rows = [row for row in rows if row.figures.num_clips]
    (folder / "negatives.csv").write_text(csv_text(rows))
    draw_tradeoff(rows, folder / "suppression-fidelity.png")
    draw_clean_curve(rows, folder / "clean-steps.png")
    main = [row for row in rows if row.is_main]
    sections = [
        "# Negative prompts, measured",
        EXPLANATION.strip(),
        *([f"Notes: {'; '.join(notes)}."] if notes else []),
        "## What was rendered",
        strengths_table(models),
        "## Targets",
        target_table(check_targets(rows)),
        "## All attributes together",
        method_table(row for row in main if row.attribute == POOLED),
        "![suppression against fidelity](suppression-fidelity.png)",
        *([f"![the same seeds under each method]({SHEET})"] if (folder / SHEET).exists() else []),
        "## Each attribute",
        method_table(row for row in main if row.attribute != POOLED),
        "## Over the steps",
        curve_table(rows),
        "![clean against steps](clean-steps.png)",
        "## The judge's own error",
        JUDGE_EXPLANATION.strip(),
        judge_table(errors),
    ]
    (folder / "negatives.md").write_text(
        "\n\n".join(section.rstrip() for section in sections) + "\n"
    )


def strengths_table(models: Iterable[ModelConfig]) -> str:
    """What the methods were given: the YAML's strengths of each model."""
    head = (
        "model",
        "CFG scale",
        "NAG scale, tau, alpha, range, norm",
        "VSF scale, bias",
        "NASA scale",
        "weights",
    )
    lines: list[tuple[str, ...]] = []
    for config in models:
        nag, vsf = config.nag, config.vsf
        scale = float(
            dict(method_fields(config, "cfg")).get("guidance_scale", config.sampling.guidance_scale)
        )
        guided = f"{nag.nag_scale:g}, {nag.nag_tau:g}, {nag.nag_alpha:g}, {nag.nag_start:g}-{nag.nag_end:g}, {nag.nag_norm}"
        rivals = f"{vsf.vsf_scale:g}, {vsf.vsf_bias:g}", f"{config.nasa.nasa_scale:g}"
        lines.append((config.name, f"{scale:g}", guided, *rivals, config.dtype))
    return markdown_table(head, lines)


def incomplete_notes(rows: Iterable[Row]) -> list[str]:
    """Cells whose clips are not all there yet, all settings of a cell together where none has any."""
    notes: dict[str, None] = {}
    pooled = [row for row in rows if row.attribute == POOLED]
    begun = {_cell(row) for row in pooled if row.figures.num_clips}
    for row in pooled:
        if _cell(row) not in begun:
            notes[f"not rendered: {_cell(row)}"] = None
        elif row.figures.num_clips < row.figures.num_tasks:
            counts = f"{row.figures.num_clips} of {row.figures.num_tasks} clips"
            notes[f"unfinished: {_cell(row)}, {row.setting.name}: {counts}"] = None
    return list(notes)


def _cell(row: Row) -> str:
    return f"{row.model}, {row.num_steps} steps, {row.case}"
