"""The command line that all benchmarks share: measure case by case, go on, write the result."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.report import (
    MEASUREMENTS,
    ROOT,
    Cases,
    Figure,
    Result,
    describe_machine,
    describe_versions,
)

Options = argparse.Namespace
Measure = Callable[[], Any]  # measures one case and returns a JSON value


@dataclass(frozen=True)
class Benchmark:
    """One command under `benchmarks`.

    Args:
        name: its module; also the name of its files in docs/measurements.
        title: heading of its page.
        about: help text.
        libraries: packages whose versions decide the result.
        cases: the cases in order, by name. Each is measured on its own and written at once.
        figures: the figures of the cases measured so far.
        body: the page's own text and tables for the cases measured so far.
        add_options: adds the benchmark's own options, which must be `--name VALUE` or flags.
        uses_gpu: returns True if a run with these options measures this machine's GPU.
    """

    name: str
    title: str
    about: str
    libraries: Sequence[str]
    cases: Callable[[Options], Mapping[str, Measure]]
    figures: Callable[[Cases], Iterable[Figure]]
    body: Callable[[Cases], str]
    add_options: Callable[[argparse.ArgumentParser], None] = lambda _parser: None
    uses_gpu: Callable[[Options], bool] = lambda _options: False


def main(benchmark: Benchmark, arguments: Sequence[str] | None = None) -> None:
    """Measure the cases that PREFIX.json lacks, and write PREFIX.json and PREFIX.md."""
    options, own = _parse(benchmark, arguments)
    usual = ROOT / "build" / "benchmarks" / "tiny" if options.tiny else MEASUREMENTS
    prefix: Path = options.prefix or usual / benchmark.name
    path = prefix.with_suffix(".json")
    cases = benchmark.cases(options)  # refuses what cannot be measured here
    result = _start(benchmark, options, own, path)
    only = options.only or [""]
    wanted = [name for name in cases if any(text in name for text in only)]
    if not wanted:
        sys.exit(f"no case has {' or '.join(only)} in its name; the cases are: {', '.join(cases)}")
    missing = [name for name in wanted if options.again or name not in result.cases]
    _say(f"{len(missing)} of {len(wanted)} cases to measure; the others are in {path}")
    prefix.parent.mkdir(parents=True, exist_ok=True)
    first_s = time.monotonic()
    for number, name in enumerate(missing, start=1):
        begin_s = time.monotonic()
        if options.minutes is not None and begin_s - first_s > 60 * options.minutes:
            _say(f"{len(missing) - number + 1} cases are left; call this again")
            break
        _say(f"{number} of {len(missing)}: {name}")
        loads = {**result.loads, name: os.getloadavg()[0]}
        niceness = {**result.niceness, name: os.getpriority(os.PRIO_PROCESS, 0)}
        measured = {**result.cases, name: cases[name]()}
        result = replace(
            result,
            cases={one: measured[one] for one in cases if one in measured},
            loads={one: loads[one] for one in cases if one in loads},
            niceness={one: niceness[one] for one in cases if one in niceness},
            date=_today(),
        )
        result = _with_figures(benchmark, result)
        result.write(path)
        _say(f"{name}: measured in {time.monotonic() - begin_s:.0f} s")
    result = _with_figures(
        benchmark, result
    )  # also the figures of an earlier call follow this code
    result.write(path)
    text = result.page(benchmark.title, benchmark.body(result.cases))
    prefix.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def _parse(benchmark: Benchmark, arguments: Sequence[str] | None) -> tuple[Options, list[str]]:
    """Return the options, and those among them that decide what is measured."""
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{benchmark.name}",
        description=benchmark.about,
        epilog="Each case is written as soon as it is measured; a second call measures the cases "
        "that are missing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "prefix",
        nargs="?",
        type=Path,
        help="writes PREFIX.json and PREFIX.md (default: docs/measurements/"
        f"{benchmark.name}; with --tiny build/benchmarks/tiny/{benchmark.name})",
    )
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose name has this text")
    parser.add_argument("--again", action="store_true", help="measure cases that are there, too")
    parser.add_argument("--minutes", type=float, help="begin no further case after so many minutes")
    shared = set(vars(parser.parse_args([])))
    parser.add_argument(
        "--tiny", action="store_true", help="try the benchmark with tiny sizes, in seconds"
    )
    benchmark.add_options(parser)
    options = parser.parse_args(arguments)
    own = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f"={value}")
        for name, value in vars(options).items()
        if name not in shared and value != parser.get_default(name)
    ]
    return options, own


def _start(benchmark: Benchmark, options: Options, own: list[str], path: Path) -> Result:
    """Return the result so far, which must be of this machine, these versions and options."""
    empty = Result(
        benchmark.name,
        own,
        describe_machine(benchmark.uses_gpu(options)),
        describe_versions(benchmark.libraries),
        _today(),
        {},
        {},
    )
    if not path.exists():
        return empty
    found = Result.read(path)
    for field in ("arguments", "machine", "versions"):
        before, now = getattr(found, field), getattr(empty, field)
        if before != now and options.again:
            return empty  # its cases cannot stand beside those of this machine
        if before != now:
            sys.exit(
                f"{path} has other {field}: {before}; here: {now}. Choose another PREFIX, or "
                "--again to replace it"
            )
    return found


def _with_figures(benchmark: Benchmark, result: Result) -> Result:
    figures = {figure.name: figure for figure in benchmark.figures(result.cases)}
    return replace(result, figures=figures)


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
