"""A benchmark from its options to its report; the rendering in between is the farm's own, and not called from here."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.bench.design.blocks import Block, num_model_calls, planned_clips, write_design
from jobs.bench.design.options import PRECISION, BenchOptions, find_models
from jobs.bench.design.precision import write_variant
from jobs.bench.measuring.cache import LineCache
from jobs.bench.measuring.judge_error import judge_errors, judge_looks
from jobs.bench.measuring.judging import clip_look, look_at_all, open_cache, truth_look
from jobs.bench.measuring.results import TRUTH_REPLICATES, Row, answers_by_setting, table_rows
from jobs.bench.negatives import SHEET, incomplete_notes, negatives_blocks, write_negatives_report
from jobs.bench.parameters import parameters_blocks, write_parameters_report
from jobs.bench.reporting.plots import require_matplotlib
from jobs.bench.reporting.sheet import draw_method_sheet
from jobs.config import EncodingConfig
from jobs.errors import RefusedError
from jobs.manifest.manifest import Manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import committed_ids
from jobs.store.store import Store
from pipelines.catalog.model_config import ModelConfig

# CPU seconds of shapes-wan on one core with bf16 instructions: a call of its transformer, and all else of a clip (of
# which decode is 0.16, features 0.08, encode 0.04). Only for the estimate that is printed before.
CALL_S, CLIP_S = 0.016, 0.3


@dataclass(frozen=True)
class Bench:
    """What is rendered, and where it is written down.

    Args:
        models_folder: for the run: the user's, or that of the derived models.
    """

    options: BenchOptions
    models: tuple[ModelConfig, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    manifest: Path
    models_folder: Path | None


def prepare(options: BenchOptions, models_folder: Path | None) -> Bench:
    """Decides what is rendered, and writes manifest and design.

    Raises:
        RefusedError, PipelineError: something is unknown or missing; nothing was written.
    """
    require_matplotlib()
    models, missing = find_models(options, ModelCatalog(models_folder))
    notes = tuple(f"not here, and so left out: {name}" for name in missing)
    make_blocks = negatives_blocks if options.kind == "negatives" else parameters_blocks
    blocks = make_blocks(options, models)
    if options.kind == "parameters" and PRECISION in options.slices:
        if models_folder is not None:
            raise RefusedError(
                "the slice precision makes models of its own: leave --models out, or name other slices"
            )
        models_folder = options.work / "models"
        for config in models:
            write_variant(config, models_folder)
    manifest = options.work / f"{options.kind}.jsonl"
    write_design(blocks, manifest, options.work / f"{options.kind}-design.json")
    return Bench(options, tuple(models), blocks, notes, manifest, models_folder)


def describe(bench: Bench) -> str:
    """What is about to be rendered, for people."""
    clips = list(planned_clips(bench.blocks))
    calls = sum(map(num_model_calls, clips))
    lines = [
        f"{block.model}, {block.num_steps} steps: {len(block.settings)} settings on {len(block.tasks)} tasks"
        for block in bench.blocks
    ]
    hours = (calls * CALL_S + len(clips) * CLIP_S) / 3600
    total = f"{len(clips):,} clips, {calls:,} calls of a transformer: roughly {hours:.1f} hours of one CPU core"
    return "\n".join((*bench.notes, *lines, total))


def report(
    bench: Bench, manifest: Manifest, store: Store, encoding: EncodingConfig, console: Console
) -> None:
    """Looks at what is committed, as far as it was not looked at before, and writes the report."""
    options = bench.options
    clip_ids = {spec.name: spec.clip_id for spec in manifest.specs()}
    committed = committed_ids(store)
    cache = open_cache(options.work, encoding)
    is_negatives = options.kind == "negatives"
    looks = [clip_look(store, clip_id) for clip_id in clip_ids.values() if clip_id in committed]
    looks += [
        truth_look(task, replicate, encoding)
        for block in bench.blocks
        for task in block.tasks
        for replicate in range(TRUTH_REPLICATES)
    ]
    if is_negatives:
        looks += judge_looks(options.sizes.judge_clips, encoding)
    look_at_all(cache, looks, options.processes, console, "judging")
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
