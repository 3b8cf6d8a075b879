"""`nagfarm bench paper`: a prompt set with and without guidance, rendered and scored."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.bench.design.options import REPORT
from jobs.bench.paper.design import (
    DEFAULT_METHODS,
    PlannedClip,
    plan_clips,
    read_prompts,
    settings_of,
)
from jobs.bench.paper.table import PairedFigures, document, json_text, markdown, table_rows
from jobs.cli.outputs.score import (
    add_measure_arguments,
    find_wanted_references,
    measure_specs,
    pool_of,
    progress_bar,
    say_aside,
    say_trouble,
    score_all,
)
from jobs.cli.pattern.command import EXIT_FINDINGS, EXIT_OK, Context
from jobs.cli.pattern.manifest import open_for_run
from jobs.cli.render import RenderOptions, render
from jobs.errors import RefusedError, StoppedError, UnwritableError
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.schema import ClipRecord
from jobs.records.scores.score_record import ScoreRecord
from jobs.scoring.scoring_run import ScoringRun, find_measures
from jobs.text import counted
from jobs.whole_files import write_text_for, writing_for

NAME = "paper"


@dataclass(frozen=True)
class PaperOptions:
    """The options of the benchmark.

    Args:
        models, methods, steps: the rows of the table; empty methods and steps are the defaults.
        render_options: makes the options of the run that renders a manifest.
        limit: prompts of the set; None for all.
    """

    report: Path
    models_folder: Path | None
    models: tuple[str, ...]
    methods: tuple[str, ...]
    steps: tuple[int, ...]
    prompts: Path | None
    limit: int | None
    measures: tuple[str, ...]
    stills: int
    question: str
    references: Path | None
    here: bool
    fetch: bool
    report_only: bool
    render_options: Callable[[Path, Path | None], RenderOptions]


def add_paper_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that this benchmark alone has."""
    group = parser.add_argument_group("paper")
    group.add_argument(
        "--prompts", type=Path, metavar="FILE", help="a prompt set, as `nagfarm prompts` writes it"
    )
    add_measure_arguments(group.add_argument)


def run_paper(options: PaperOptions, context: Context) -> int:
    """Render, score and report.

    Raises:
        RefusedError: an option is wrong.
        ScoringError: weights of a measure are missing or broken.
        JobError: as `render`, and as the scoring run.
    """
    specs = measure_specs(options.measures, options.stills, options.question)
    references = find_wanted_references(specs, options.references)
    measures = find_measures(specs, say_aside if options.fetch else None)
    planned = _plan(options)
    manifest = options.report / "work" / f"{NAME}.jsonl"
    _write_manifest(manifest, planned)
    settings = list(dict.fromkeys(clip.setting for clip in planned))
    context.say(f"{counted(len(planned), 'clip')}: {counted(len(settings), 'setting')}")
    render_options = options.render_options(manifest, options.models_folder)
    started = time.time()
    code = EXIT_OK if options.report_only else render(render_options, context, started)
    opened = open_for_run(render_options, started)
    of_clip = _by_clip_id(
        planned, {row.spec.name: row.spec.clip_id for row in opened.manifest.rows()}
    )
    paired = PairedFigures()

    def groups_of(record: ClipRecord, scores: list[ScoreRecord]) -> list[tuple[str, ...]]:
        for clip in of_clip[record.clip_id]:
            paired.add(clip.setting, clip.prompt, record, scores)
        return [clip.setting.group for clip in of_clip[record.clip_id]]

    with (
        progress_bar(context.console, is_json=False) as on_step,
        pool_of(measures, opened.store.uri, opened.config, is_here=options.here) as pool,
    ):
        scoring = ScoringRun(opened.store, measures, lambda clip: clip.clip_id in of_clip, on_step)
        placed = score_all(scoring, references, pool)
    groups = scoring.figures(groups_of, placed)
    say_trouble(scoring.progress)
    counts = Counter(clip.setting for clip in planned)
    rows = table_rows(settings, counts, groups, paired)
    command = _command(options)
    path = options.report / f"{NAME}.md"
    found = json_text(document(rows, measures.found, command))
    with ended_by_report():
        write_text_for(REPORT, path, markdown(rows, measures.found, command))
        write_text_for(REPORT, path.with_suffix(".json"), found)
    context.say(f"the report is {path}")
    return EXIT_FINDINGS if scoring.progress.num_trouble else code


def _plan(options: PaperOptions) -> list[PlannedClip]:
    if options.prompts is None:
        raise RefusedError(
            "bench paper: name a prompt set with --prompts, such as one that `nagfarm prompts "
            "objects --negative-prompt 'low quality' --output objects.jsonl` writes"
        )
    if not options.models:
        raise RefusedError("bench paper: name the models with --model; nagfarm models lists them")
    if options.limit is not None and options.limit < 1:
        raise RefusedError(f"--clips: expected at least 1, got {options.limit}")
    catalog = ModelCatalog(options.models_folder)
    configs = {name: catalog.get(name).config for name in options.models}
    methods = options.methods or DEFAULT_METHODS
    settings = settings_of(list(configs.values()), methods, options.steps)
    prompts = read_prompts(options.prompts, options.limit)
    planned = list(plan_clips(prompts, settings, configs))
    names = Counter(clip.name for clip in planned)
    if twice := next((name for name, number in names.items() if number > 1), None):
        raise RefusedError(
            f"--prompts: two prompts give the clip name {twice}; name them otherwise"
        )
    return planned


def _write_manifest(path: Path, planned: list[PlannedClip]) -> None:
    with writing_for(REPORT, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(dict(clip.row), ensure_ascii=False) + "\n" for clip in planned)
    write_text_for(REPORT, path, "".join(lines))


@contextmanager
def ended_by_report() -> Generator[None]:
    """Raise StoppedError, since all is rendered, if the report cannot be written in the end."""
    try:
        yield
    except UnwritableError as error:
        raise StoppedError(f"{error}; --report-only then writes the report alone") from error


def _by_clip_id(
    planned: list[PlannedClip], clip_ids: dict[str, str]
) -> dict[str, list[PlannedClip]]:
    """Return the clips of the design by id; one clip may stand for several settings."""
    found: dict[str, list[PlannedClip]] = {}
    for clip in planned:
        found.setdefault(clip_ids[clip.name], []).append(clip)
    return found


def _command(options: PaperOptions) -> str:
    """Return the command that makes the report, without paths of this machine."""
    words = ["nagfarm bench paper", f"--model {','.join(options.models)}"]
    words += [f"--method {','.join(options.methods)}"] if options.methods else []
    words += [f"--steps {','.join(map(str, options.steps))}"] if options.steps else []
    words += [f"--clips {options.limit}"] if options.limit else []
    words += [f"--prompts {options.prompts.name}"] if options.prompts else []
    words += [f"--measure {text.partition('=')[0]}" for text in options.measures]
    return " ".join(words)
