"""`python -m benchmarks.guard [NAME...]` fails if a figure became worse than the committed one.

It runs each benchmark with the options of the committed docs/measurements/NAME.json, and compares
the figures that have a margin: as a rule ratios, which hold on other machines too. The margin
stands in the benchmark, beside the figure. Without names: all that are committed.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import MEASUREMENTS, ROOT, Result, shown
from jobs.ending import ExitCode

FRESH = ROOT / "build" / "benchmarks"


def compare(committed: Result, fresh: Result) -> list[tuple[str, str]]:
    """Return each compared figure in words, and why it fails or "" if it passes.

    A committed figure with a margin that was not measured again fails.
    """
    found: list[tuple[str, str]] = []
    for name, before in committed.figures.items():
        now = fresh.figures.get(name)
        if now is None:
            if before.margin is not None:
                found.append((f"{name}: {shown(before.value)} committed", "not measured"))
        elif now.margin is not None:
            limit = (
                f"at {'least' if now.is_higher_better else 'most'} {now.limit(before.value):.4g}"
            )
            words = f"{name}: {now.value:.4g}, {before.value:.4g} committed, {limit} passes"
            found.append((words, "WORSE" if now.is_worse(before.value) else ""))
    return found


def committed_names() -> list[str]:
    """Return the benchmarks whose committed result has figures."""
    return sorted(
        path.stem for path in MEASUREMENTS.glob("*.json") if '"figures"' in path.read_text()
    )


def _measure(committed: Result, prefix: Path) -> None:
    command = [sys.executable, "-m", f"benchmarks.{committed.name}", str(prefix), "--again"]
    finished = subprocess.run(
        [*command, *committed.arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=False
    )
    if finished.returncode:
        sys.exit(f"benchmarks.{committed.name} failed with exit code {finished.returncode}")


def main(arguments: Sequence[str] | None = None) -> ExitCode:
    known = committed_names()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}")
    parser.add_argument(
        "--read", type=Path, metavar="FOLDER", help="compare FOLDER/NAME.json, measured before"
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in known:
            parser.error(f"docs/measurements has no figures of {name}; it has: {', '.join(known)}")
    is_worse = False
    for name in options.names or known:
        committed = Result.read(MEASUREMENTS / f"{name}.json")
        folder = options.read or FRESH
        if options.read is None:
            _measure(committed, folder / name)
        fresh = Result.read(folder / f"{name}.json")
        if fresh.arguments != committed.arguments:
            parser.error(f"{folder / name}.json has other options: {fresh.command}")
        print(f"{committed.command}\n  committed: {committed.machine}\n  now: {fresh.machine}")
        for words, fault in compare(committed, fresh):
            print(f"  {fault or 'passes'}: {words}")
            is_worse |= bool(fault)
    return ExitCode.UNFINISHED if is_worse else ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
