"""The command line of `nagfarm bench`: its arguments, and the options that they make. Loads without torch."""

import argparse
import os
from dataclasses import replace
from pathlib import Path

from jobs.bench.design.options import (
    ATTRIBUTES,
    CASES,
    METHODS,
    QUICK,
    QUICK_METHODS,
    QUICK_SLICES,
    SLICE_NAMES,
    STANDARD,
    BenchKind,
    BenchOptions,
)
from jobs.errors import RefusedError

BENCH_SUMMARY = (
    "measure negative prompts: render through the farm, judge, and report; resumes by itself"
)
BENCH_EPILOG = """\
negatives   methods against each other: suppression, fidelity, clean, distance, diversity, motion, cost
parameters  what each parameter does, as heat maps

examples:
  nagfarm bench negatives --quick                        a few clips of one model, to see that all works
  nagfarm bench negatives --model shapes-wan --steps 25  one model at 25 steps
  nagfarm bench negatives                                all Shapes models: many hours on two cores
  nagfarm bench parameters --slice scale-alpha,range

Lists are separated by commas. A run that was interrupted goes on where it stopped; --report-only judges what is there.
"""


def add_bench_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "kind", choices=sorted(STANDARD), metavar="BENCHMARK", help="negatives or parameters"
    )
    command.add_argument(
        "--report",
        type=Path,
        default=Path("bench-report"),
        metavar="FOLDER",
        help="where the report is written",
    )
    command.add_argument(
        "--output", metavar="URI", help="where the clips go; FOLDER/clips if left out"
    )
    command.add_argument("--model", metavar="LIST", help="the Shapes models to measure")
    command.add_argument("--method", metavar="LIST", help=f"of {', '.join(METHODS)}")
    command.add_argument(
        "--steps", metavar="LIST", help="numbers of steps, that of the main table first"
    )
    command.add_argument(
        "--attribute", metavar="LIST", help=f"what is negated, of {', '.join(ATTRIBUTES)}"
    )
    command.add_argument("--case", metavar="LIST", help=f"of {', '.join(CASES)}")
    command.add_argument("--slice", metavar="LIST", help=f"of the sweep: {', '.join(SLICE_NAMES)}")
    command.add_argument(
        "--clips",
        type=int,
        metavar="N",
        help="per attribute, case and method (negatives) or per setting (parameters)",
    )
    command.add_argument(
        "--curve-clips", type=int, metavar="N", help="per attribute and method at other steps"
    )
    command.add_argument(
        "--quick", action="store_true", help="a handful of clips of the first model"
    )
    command.add_argument(
        "--report-only", action="store_true", help="render nothing; judge and report what is there"
    )
    command.add_argument(
        "--retry-quarantined", action="store_true", help="also render clips that were given up"
    )
    command.add_argument(
        "--processes",
        type=int,
        default=os.cpu_count() or 1,
        metavar="N",
        help="that judge clips side by side",
    )
    command.add_argument(
        "--profile",
        type=Path,
        metavar="FILE",
        help="a YAML of run settings, over configs/base.yaml",
    )
    command.add_argument(
        "settings", nargs="*", metavar="key=value", help="run settings, such as workers.count=2"
    )


def read_bench_options(arguments: argparse.Namespace) -> BenchOptions:
    """Raises RefusedError for what no benchmark knows."""
    kind: BenchKind = arguments.kind
    sizes = QUICK if arguments.quick else STANDARD[kind]
    if arguments.clips is not None:
        sizes = replace(sizes, clips=arguments.clips)
    if arguments.curve_clips is not None:
        sizes = replace(sizes, curve_clips=arguments.curve_clips)
    return BenchOptions(
        kind=kind,
        report=arguments.report,
        sizes=sizes,
        models=_words(arguments.model),
        methods=_words(arguments.method) or (QUICK_METHODS if arguments.quick else METHODS),
        steps=_numbers(arguments.steps),
        attributes=_words(arguments.attribute) or ATTRIBUTES,
        cases=_words(arguments.case) or CASES,
        slices=_words(arguments.slice) or (QUICK_SLICES if arguments.quick else SLICE_NAMES),
        is_quick=arguments.quick,
        processes=arguments.processes,
    )


def _words(text: str | None) -> tuple[str, ...]:
    """A list without repeats, in its order."""
    return tuple(dict.fromkeys(word.strip() for word in (text or "").split(",") if word.strip()))


def _numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(word) for word in _words(text)))
    except ValueError as error:
        raise RefusedError(
            f"--steps must be whole numbers separated by commas, not {text!r}"
        ) from error
