"""The benchmark of negative prompts: its clips and its report."""

from collections.abc import Iterable
from pathlib import Path
from typing import cast

from jobs.bench.design.blocks import Block, Setting, interleaved_tasks
from jobs.bench.design.options import REPORT, BenchOptions, cfg_scale
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
    write_page,
)
from jobs.whole_files import write_text_for
from pipelines.catalog.model_config import ModelConfig
from pipelines.shapes.evaluation.negation import Case

SHEET = "negatives-sheet.png"
EXPLANATION = """\
All methods are measured on the same tasks (prompt, negative prompt and seed); [ ] is a 95 %
interval. In the *open* case the prompt leaves the negated attribute open. In the *hard* case it
names the value that is negated.

- **suppression**: the relative fall of the share of clips that show the negated value, against no
  guidance; 1 is a fall to zero.
- **negated**: that share itself. **unread**: the share of clips too broken for that attribute to be
  read. They count as not showing it, so suppression with many unread clips is worth less.
- **fidelity**: the share of clips that show everything the prompt names, except the negated value.
- **clean**: the share of clips that are members of the Shapes world: one whole shape, evenly
  coloured, on an even path.
- **to none**: the paired difference to no guidance; for motion, the ratio.
- **distance**: the Frechet distance to true clips that answer the same tasks right, in the features
  of a frozen autoencoder. **floor**: the same distance between two independent sets of true clips
  of equal size.
- **diversity**: the entropy of the attributes that the prompt leaves open, over the largest
  possible.
- **commonest**: of the values that are shown instead of a negated one, the share of the commonest;
  near 1, a negative prompt collapses to one opposite.
- **motion**: the displacement along the direction that the prompt names, over the true one.
- **cost**: denoise seconds over those without guidance; the median over the tasks that one run
  rendered both ways.
"""
JUDGE_EXPLANATION = """\
The verdicts of the judge on true clips and on deliberately broken ones, all after H.264. A frozen
clip is a clean member of the world that stands still; only its motion is wrong. A clip between two
shapes or two colours has no right reading.
"""


def method_settings(config: ModelConfig, methods: Iterable[str]) -> tuple[Setting, ...]:
    """Return each method with the parameters of the model's YAML."""
    return tuple(Setting(method, method_fields(config, method)) for method in methods)


def method_fields(config: ModelConfig, method: str) -> tuple[tuple[str, str | float], ...]:
    """Return a method's manifest fields. CFG gets a scale even if the model's YAML has none."""
    if method in ("cfg", "cfg+nag") and config.sampling.guidance_scale == 1:
        return ("method", method), ("guidance_scale", cfg_scale(config))
    return (("method", method),)


def negatives_blocks(options: BenchOptions, models: Iterable[ModelConfig]) -> tuple[Block, ...]:
    """Return each model's main block, then its other numbers of steps in the open case only."""
    blocks: list[Block] = []
    for config in models:
        settings = method_settings(config, options.methods)
        main, *others = options.steps_of(config)
        cases = cast("tuple[Case, ...]", options.cases)
        tasks = interleaved_tasks(options.attributes, cases, options.sizes.clips, options.series)
        blocks.append(Block(config.name, main, True, settings, tasks))
        if options.sizes.curve_clips:
            sizes = options.sizes.curve_clips, options.series
            tasks = interleaved_tasks(options.attributes, ("open",), *sizes)
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
    """Write negatives.csv, negatives.md and the plots of the rendered clips."""
    rows = [row for row in rows if row.figures.num_clips]
    write_text_for(REPORT, folder / "negatives.csv", csv_text(rows))
    draw_tradeoff(rows, folder / "suppression-fidelity.png")
    draw_clean_curve(rows, folder / "clean-steps.png")
    main = [row for row in rows if row.is_main]
    sections = [
        "# Negative prompts, measured",
        EXPLANATION.strip(),
        *([f"Notes: {'; '.join(notes)}."] if notes else []),
        "## Models and parameters",
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
    write_page(folder / "negatives.md", sections)


def strengths_table(models: Iterable[ModelConfig]) -> str:
    """Return a table of each method's parameters, from the YAML of each model."""
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
        active = f"{nag.nag_start:g}-{nag.nag_end:g}"
        strengths = f"{nag.nag_scale:g}, {nag.nag_tau:g}, {nag.nag_alpha:g}"
        guided = f"{strengths}, {active}, {nag.nag_norm}"
        rivals = f"{vsf.vsf_scale:g}, {vsf.vsf_bias:g}", f"{config.nasa.nasa_scale:g}"
        lines.append((config.name, f"{scale:g}", guided, *rivals, config.dtype))
    return markdown_table(head, lines)


def incomplete_notes(rows: Iterable[Row]) -> list[str]:
    """Return notes on cells with missing clips: one per setting, or one if no clip exists."""
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
