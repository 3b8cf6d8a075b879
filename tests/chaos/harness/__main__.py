"""Inject each fault into a real farm on this machine, and audit the store after each.

`python -m tests.chaos.harness` exits with 1 if an invariant broke or a run did not end as expected.
"""

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

from infra.local.local_process import stop_signal_as_interrupt
from tests.chaos.harness.farm import Farm
from tests.chaos.harness.fault_cost import measure_fault_cost
from tests.chaos.harness.report import (
    as_numbers,
    put_between_markers,
    read_outcomes,
    table,
    write_numbers,
)
from tests.chaos.harness.runner import Outcome, Scenario, run_scenario
from tests.chaos.harness.scenarios import all_scenarios, fault_free
from tests.chaos.harness.soak import soak


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Inject faults into a real farm on this machine, and audit its store."
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run only these scenarios")
    parser.add_argument("--short", action="store_true", help="fewer kills and shorter outages")
    parser.add_argument("--list", action="store_true", help="list the names of the scenarios")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of all random moments and choices"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="PATH",
        help="write PATH.md and PATH.json, such as docs/measurements/chaos",
    )
    parser.add_argument(
        "--soak",
        type=int,
        metavar="CLIPS",
        help="run one long run of this many clips under a mix of faults instead",
    )
    parser.add_argument(
        "--mix",
        type=int,
        metavar="REPEATS",
        help="measure the cost of the mix of faults instead, this many times",
    )
    options = parser.parse_args()
    scenarios = all_scenarios(is_short=options.short)
    if options.list:
        for scenario in scenarios:
            print(f"{scenario.name:<20}{scenario.fault}")
        return 0
    if unknown := set(options.only or ()) - {scenario.name for scenario in scenarios}:
        parser.error(
            f"unknown scenarios: {', '.join(sorted(unknown))}; --list shows the known ones"
        )
    chosen = [
        scenario for scenario in scenarios if not options.only or scenario.name in options.only
    ]
    with stop_signal_as_interrupt(), tempfile.TemporaryDirectory(prefix="nagfarm-chaos-") as folder:
        if options.soak:
            return soak(Path(folder), options.soak, options.seed, options.report)
        if options.mix:
            return measure_fault_cost(Path(folder), options.mix, options.seed, options.report)
        return run_all(Path(folder), chosen, options.seed, options.report)


def run_all(folder: Path, scenarios: list[Scenario], seed: int, report: Path | None) -> int:
    """Run scenarios, and renew their rows in the report after each; other rows stay."""
    outcomes: list[Outcome] = []
    bases: dict[str, Outcome] = {}  # by the name of the fault-free scenario
    with Farm(folder, seed) as farm:
        for scenario in scenarios:
            base = fault_free(scenario.workload)
            if base.name not in bases:
                bases[base.name] = print_outcome(run_scenario(base, farm, seed))
            outcomes.append(print_outcome(run_scenario(scenario, farm, seed)))
            if report is not None:
                write_row(report, outcomes[-1], bases[base.name].wall_s, seed)
    num_bad = sum(not outcome.is_clean for outcome in (*outcomes, *bases.values()))
    print(
        f"{len(outcomes)} scenarios; {num_bad} of them and of their fault-free runs "
        "did not end as expected"
    )
    return 1 if num_bad else 0


def write_row(report: Path, outcome: Outcome, base_s: float, seed: int) -> None:
    """Renew the row of one scenario in the page and in the raw numbers."""
    rows = {**read_outcomes(report.with_suffix(".json")), outcome.name: (outcome, base_s)}
    known = [scenario.name for scenario in all_scenarios(is_short=False)]
    names = sorted(rows, key=lambda name: known.index(name) if name in known else len(known))
    text = table([rows[name][0] for name in names], {name: rows[name][1] for name in names})
    put_between_markers(report.with_suffix(".md"), "faults", text)
    numbers = [as_numbers(*rows[name]) for name in names]
    write_numbers(
        report.with_suffix(".json"),
        "faults",
        {"machine": machine(), "seed": seed, "outcomes": numbers},
    )


def print_outcome(outcome: Outcome) -> Outcome:
    found = outcome.audit
    print(
        f"{outcome.name:<20}{outcome.num_injected:>5} injected, {found.num_planned} clips: "
        f"{found.num_committed} committed, {found.num_quarantined} in quarantine, "
        f"{len(found.lost)} lost, {len(found.duplicated)} duplicated, "
        f"{outcome.wall_s:.0f} s{'' if outcome.is_clean else ', NOT AS EXPECTED'}",
        flush=True,
    )
    for line in (*outcome.problems, *found.violations):
        print(f"    {line}", flush=True)
    return outcome


def machine() -> dict[str, object]:
    return {
        "cpus": os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
