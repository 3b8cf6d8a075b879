"""A benchmark from its options to its report. The command line renders the clips in between."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.bench.design.blocks import Block, num_model_calls, planned_clips, write_design
from jobs.bench.design.options import PRECISION, BenchOptions, find_models
from jobs.bench.design.precision import write_variant
from jobs.bench.measuring.cache import LineCache
from jobs.bench.measuring.judge_error import broken_clips_to_judge, judge_errors
from jobs.bench.measuring.judging import committed_to_judge, judge_all, open_cache, truth_to_judge
from jobs.bench.measuring.results import TRUTH_REPLICATES, Row, answers_by_setting, table_rows
from jobs.bench.negatives import SHEET, incomplete_notes, negatives_blocks, write_negatives_report
from jobs.bench.parameters import parameters_blocks, write_parameters_report
from jobs.bench.reporting.plots import require_matplotlib
from jobs.bench.reporting.sheet import draw_method_sheet
from jobs.errors import RefusedError
from jobs.manifest.manifest import Manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import committed_ids
from jobs.settings.run_config import EncodingConfig
from jobs.store.store import Store
from jobs.text import counted
from pipelines.catalog.model_config import ModelConfig

# CPU seconds of shapes-wan on one core with bf16 instructions: a pass of its transformer, and the
# rest of a clip (decode 0.16, features 0.08, encode 0.04). Only the printed estimate uses them.
CALL_S, CLIP_S = 0.016, 0.3


@dataclass(frozen=True)
class Bench:
    """A benchmark, ready to render.

    Args:
        options: the options of the command line.
        models: the models to measure.
        blocks: the clips to render.
        notes: remarks for the report, such as missing models.
        manifest: the manifest of the clips.
        models_folder: the folder of model YAMLs for the run: the user's, or that of derived models.
    """

    options: BenchOptions
    models: tuple[ModelConfig, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    manifest: Path
    models_folder: Path | None


def prepare(options: BenchOptions, models_folder: Path | None) -> Bench:
    """Choose the clips, and write the manifest and the design.

    Raises:
        RefusedError, PipelineError: something is unknown or missing; nothing was written.
    """
    require_matplotlib()
    models, missing = find_models(options, ModelCatalog(models_folder))
    notes = tuple(f"left out because its weights are missing: {name}" for name in missing)
    make_blocks = negatives_blocks if options.kind == "negatives" else parameters_blocks
    blocks = make_blocks(options, models)
    if options.kind == "parameters" and PRECISION in options.slices:
        if models_folder is not None:
            raise RefusedError(
                "--slice precision derives models and cannot be combined with --models; "
                "leave --models out, or name other slices"
            )
        models_folder = options.work / "models"
        for config in models:
            write_variant(config, models_folder)
    manifest = options.work / f"{options.kind}.jsonl"
    write_design(blocks, manifest, options.work / f"{options.kind}-design.json")
    return Bench(options, tuple(models), blocks, notes, manifest, models_folder)


def describe(bench: Bench) -> list[str]:
    """Return lines about the clips to render, with an estimate of the time."""
    clips = list(planned_clips(bench.blocks))
    calls = sum(map(num_model_calls, clips))
    lines = [
        f"{block.model}, {counted(block.num_steps, 'step')}: "
        f"{counted(len(block.settings), 'setting')} on {counted(len(block.tasks), 'task')}"
        for block in bench.blocks
    ]
    hours = (calls * CALL_S + len(clips) * CLIP_S) / 3600
    passes = f"{counted(len(clips), 'clip')}, {calls:,} passes of a transformer"
    total = f"{passes}: roughly {hours:.1f} hours on one CPU core"
    return [*bench.notes, *lines, total]


def report(
    bench: Bench, manifest: Manifest, store: Store, encoding: EncodingConfig, console: Console
) -> None:
    """Judge the committed clips that are not in the cache yet, and write the report."""
    options = bench.options
    clip_ids = {row.clip.name: row.clip.clip_id for row in manifest.rows()}
    committed = committed_ids(store)
    cache = open_cache(options.work, encoding)
    is_negatives = options.kind == "negatives"
    calls = [
        committed_to_judge(store, clip_id) for clip_id in clip_ids.values() if clip_id in committed
    ]
    calls += [
        truth_to_judge(task, replicate, encoding)
        for block in bench.blocks
        for task in block.tasks
        for replicate in range(TRUTH_REPLICATES)
    ]
    if is_negatives:
        calls += broken_clips_to_judge(options.sizes.judge_clips, encoding)
    judge_all(cache, calls, options.processes, console, "judging")
    rendered = {name: clip_id for name, clip_id in clip_ids.items() if clip_id in committed}
    rows = [
        row
        for block in bench.blocks
        for row in _rows(block, rendered, cache, is_pooled_only=not is_negatives)
    ]
    notes = [*bench.notes, *incomplete_notes(rows)]
    if is_negatives:
        errors = judge_errors(cache, options.sizes.judge_clips)
        draw_method_sheet(bench.blocks[0], clip_ids, committed, store, options.report / SHEET)
        write_negatives_report(options.report, rows, errors, bench.models, notes)
    else:
        write_parameters_report(options.report, rows, options, bench.models, notes)


def _rows(
    block: Block, clip_ids: dict[str, str], cache: LineCache, *, is_pooled_only: bool
) -> list[Row]:
    answers = answers_by_setting(block, clip_ids, cache)
    return list(table_rows(block, answers, cache, is_pooled_only=is_pooled_only))
