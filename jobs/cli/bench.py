"""`nagfarm bench`: measure guidance on the Shapes models, rendered through the farm."""

import argparse
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from jobs.bench.design.options import (
    ATTRIBUTES,
    CASES,
    METHODS,
    NEGATIVES_SERIES,
    QUICK,
    QUICK_METHODS,
    QUICK_SLICES,
    SLICE_NAMES,
    STANDARD,
    BenchKind,
    BenchOptions,
    Series,
)
from jobs.cli.bench_paper import (
    PaperOptions,
    add_paper_arguments,
    ended_by_report,
    run_paper,
)
from jobs.cli.pattern.command import EXIT_OK, Command, ConfigOptions, Context
from jobs.cli.pattern.manifest import open_for_run
from jobs.cli.pattern.model_options import add_models_argument
from jobs.cli.render import RenderOptions, add_retry_argument, render
from jobs.errors import RefusedError

KINDS = (*STANDARD, "paper")
LISTS = {
    "model": "the models to measure; all Shapes models if left out, but for paper",
    "method": f"guidance methods out of {', '.join(METHODS)}",
    "steps": "numbers of denoise steps; the first is that of the main table",
    "attribute": f"the attributes that prompts negate, out of {', '.join(ATTRIBUTES)}",
    "case": f"kinds of prompt, out of {', '.join(CASES)}",
    "slice": f"the parameters to sweep, out of {', '.join(SLICE_NAMES)}",
}
COUNTS = {
    "clips": "clips per attribute, case and method (negatives) or per setting (parameters); "
    "prompts of the set (paper)",
    "curve-clips": "clips per attribute and method at the other numbers of steps",
}


@dataclass(frozen=True)
class BenchArguments(ConfigOptions):
    """The arguments of `nagfarm bench`; `bench_options` checks them."""

    kind: BenchKind | Literal["paper"]
    report: Path
    output: str | None
    models: Path | None
    model: str | None
    method: str | None
    steps: str | None
    attribute: str | None
    case: str | None
    slice: str | None
    series: Series
    clips: int | None
    curve_clips: int | None
    processes: int
    quick: bool
    report_only: bool
    retry_quarantined: bool
    prompts: Path | None
    measure: tuple[str, ...]
    stills: int
    question: str
    references: Path | None
    here: bool
    fetch: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "kind", choices=KINDS, metavar="BENCHMARK", help="negatives, parameters or paper"
        )
        parser.add_argument(
            "--report",
            type=Path,
            default=Path("bench-report"),
            metavar="FOLDER",
            help="the folder for the report",
        )
        parser.add_argument(
            "--output", metavar="URI", help="the output for the clips; FOLDER/clips if left out"
        )
        for name, text in LISTS.items():
            parser.add_argument(f"--{name}", metavar="LIST", help=text)
        parser.add_argument(
            "--series",
            choices=NEGATIVES_SERIES,
            default="measure",
            help="tasks of negatives: measure, or held-out, whose prompts are lists of words",
        )
        for name, text in COUNTS.items():
            parser.add_argument(f"--{name}", type=int, metavar="N", help=text)
        parser.add_argument(
            "--processes",
            type=int,
            default=os.cpu_count() or 1,
            metavar="N",
            help="the number of processes that judge clips",
        )
        parser.add_argument(
            "--quick", action="store_true", help="render a handful of clips of the first model"
        )
        parser.add_argument(
            "--report-only",
            action="store_true",
            help="render nothing; judge and report the clips that are in the output",
        )
        add_retry_argument(parser)
        add_models_argument(parser)
        super().add_arguments(parser)
        add_paper_arguments(parser)

    def bench_options(self, kind: BenchKind) -> BenchOptions:
        """Return the checked options of the benchmark. Raises RefusedError if a word is unknown."""
        sizes = QUICK if self.quick else STANDARD[kind]
        if self.clips is not None:
            sizes = replace(sizes, clips=self.clips)
        if self.curve_clips is not None:
            sizes = replace(sizes, curve_clips=self.curve_clips)
        return BenchOptions(
            kind=kind,
            report=self.report,
            sizes=sizes,
            models=_words(self.model),
            methods=_words(self.method) or (QUICK_METHODS if self.quick else METHODS),
            steps=_numbers(self.steps),
            attributes=_words(self.attribute) or ATTRIBUTES,
            cases=_words(self.case) or CASES,
            slices=_words(self.slice) or (QUICK_SLICES if self.quick else SLICE_NAMES),
            series=self.series,
            is_quick=self.quick,
            processes=self.processes,
        )

    def paper_options(self) -> PaperOptions:
        """Return the options of `bench paper`. Raises RefusedError if a number is none."""
        return PaperOptions(
            report=self.report,
            models_folder=self.models,
            models=_words(self.model),
            methods=_words(self.method),
            steps=_numbers(self.steps),
            prompts=self.prompts,
            limit=self.clips,
            measures=self.measure,
            stills=self.stills,
            question=self.question,
            references=self.references,
            here=self.here,
            fetch=self.fetch,
            report_only=self.report_only,
            render_options=self.render_options,
        )

    def render_options(self, manifest: Path, models: Path | None) -> RenderOptions:
        """Return the options of the run that renders the benchmark's clips."""
        return RenderOptions(
            manifest=str(manifest),
            output=self.output or Path(os.path.realpath(self.report / "clips")).as_uri(),
            model=None,
            models=models,
            only=(),
            limit=None,
            remote=False,
            profile=self.profile,
            settings=self.settings,
            retry_quarantined=self.retry_quarantined,
            repair=False,
            takeover=False,
            wait=None,
            deadline=None,
            report=None,
            time_zone=None,
            date=None,
            day_starts=None,
        )


def run(arguments: BenchArguments, context: Context) -> int:
    """Render a benchmark's clips as `render` does, then judge and report the committed ones."""
    if arguments.kind == "paper":
        return run_paper(arguments.paper_options(), context)
    options = arguments.bench_options(arguments.kind)

    from jobs.bench.command import describe, prepare, report

    bench = prepare(options, arguments.models)
    for line in describe(bench):
        context.say(line)
    render_options = arguments.render_options(bench.manifest, bench.models_folder)
    started = time.time()
    code = EXIT_OK if arguments.report_only else render(render_options, context, started)
    opened = open_for_run(render_options, started)
    with ended_by_report():
        report(bench, opened.manifest, opened.store, opened.config.encoding, context.console)
    context.say(f"the report is {options.report / options.kind}.md")
    return code


def _words(text: str | None) -> tuple[str, ...]:
    """Return the words of a comma-separated list in their order, without repeats."""
    return tuple(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in _words(text)))
    except ValueError as error:
        raise RefusedError(
            f"--steps: expected whole numbers separated by commas, got {text!r}"
        ) from error


COMMAND = Command(
    name="bench",
    summary="measure negative prompts: render through the farm, judge, and report",
    epilog="""\
benchmarks:
  negatives   compares methods: suppression, fidelity, clean, distance, diversity, motion, cost
  parameters  shows the effect of each parameter as heat maps
  paper       the NAG paper's table for any model: a prompt set with and without guidance, rendered,
              scored as `nagfarm score` does, each figure beside its paired difference to the first
              method (default none,nag,cfg); FOLDER/paper.md and paper.json

examples:
  nagfarm bench negatives --quick                        a few clips of one model, as a trial
  nagfarm bench negatives --model shapes-wan --steps 25  one model at 25 steps
  nagfarm bench negatives                                all Shapes models: many hours on two cores
  nagfarm bench parameters --slice scale-alpha,range
  nagfarm bench paper --model wan2.1-t2v-1.3b --prompts pairs.jsonl --measure clip --measure vqa
  nagfarm bench paper --model shapes-wan --prompts shapes.jsonl --measure shapes --measure frames

A LIST is separated by commas. `nagfarm prompts --help` has prompt sets, `nagfarm score --help` the
measures. Run an interrupted benchmark again to resume it; --report-only judges and reports the
clips rendered so far.
""",
    options=BenchArguments,
    run=run,
    is_run=True,
)
