"""The cost of a mix of faults: clips per second under it, against the same clips without faults.

A killed actor costs the clip that it computed and a new process, about 6 s here; clips take 15 s,
as on a farm where loading a model takes 0.4 of a clip's time. Their steps wait and do not compute,
so that the machine is not the limit. Both runs are measured in turn, from the first commit to that
of nine clips in ten: at a run's end actors run out of clips, which is a far smaller part of a long
run. The medians are compared.
"""

import statistics
from datetime import datetime
from pathlib import Path

from jobs.cli.pattern.command import EXIT_QUARANTINE
from jobs.records.commit import committed_ids, read_record
from tests.chaos.harness.farm import Farm
from tests.chaos.harness.fault_mix import FAULT_MIX, inject_fault_mix, poison_for
from tests.chaos.harness.report import paragraph, put_between_markers, write_numbers
from tests.chaos.harness.runner import Scenario, ScenarioRun, inject_nothing, run_scenario
from tests.chaos.harness.workload import Workload

NUM_CLIPS, STEPS, STEP_S = 120, 20, 0.75
NUM_ACTORS, NODE_CPUS = 8, 8  # either of two nodes has room for all
SETTINGS = (f"workers.count={NUM_ACTORS}",)
LEAST_SHARE = 0.9


def measure_fault_cost(folder: Path, repeats: int, seed: int, report: Path | None) -> int:
    """Run both in turn and print the share of the rate that is kept.

    Returns:
        1 if the share is below LEAST_SHARE or a run did not end as expected, else 0.
    """
    workload = Workload(NUM_CLIPS, STEPS, STEP_S, poison_for(NUM_CLIPS))
    fault_free = Scenario("mix-calm", "none", workload.healthy, inject_nothing, settings=SETTINGS)
    faulty = Scenario(
        "mix-faults", FAULT_MIX, workload, inject_fault_mix(_noop), (EXIT_QUARANTINE,), SETTINGS
    )
    rates: dict[str, list[float]] = {fault_free.name: [], faulty.name: []}
    is_clean = True
    with Farm(folder, seed, node_cpus=NODE_CPUS) as farm:
        for turn in range(repeats):
            for scenario in (fault_free, faulty):
                outcome = run_scenario(scenario, farm, seed, turn)
                rates[scenario.name].append(commits_per_s(farm, f"{scenario.name}-{turn}"))
                is_clean = is_clean and outcome.is_clean
                print(
                    f"{scenario.name}: {rates[scenario.name][-1]:.3f} clips/s, "
                    f"{outcome.wall_s:.0f} s",
                    flush=True,
                )
                for line in (*outcome.problems, *outcome.audit.violations):
                    print(f"    {line}", flush=True)
    fault_free_rate, faulty_rate = (
        statistics.median(rates[scenario.name]) for scenario in (fault_free, faulty)
    )
    share = faulty_rate / fault_free_rate
    text = (
        f"Under {FAULT_MIX}: {faulty_rate:.3f} clips per second, {fault_free_rate:.3f} without "
        f"faults, a share of {share:.3f} (medians of {repeats}; {NUM_CLIPS} clips of "
        f"{STEPS * STEP_S:g} s on {NUM_ACTORS} actors)."
    )
    print(text)
    if report is not None:
        put_between_markers(report.with_suffix(".md"), "mix", paragraph(text))
        write_numbers(report.with_suffix(".json"), "mix", {"clips_per_s": rates, "share": share})
    return 0 if is_clean and share >= LEAST_SHARE else 1


def _noop(_run: ScenarioRun) -> None:
    pass  # sampling would slow what is measured


def commits_per_s(farm: Farm, prefix: str) -> float:
    """Return the rate from the first commit of an output to that of nine clips in ten."""
    store = farm.store(farm.output(prefix))
    moments = sorted(
        datetime.fromisoformat(read_record(store, clip_id).committed_at).timestamp()
        for clip_id in committed_ids(store)
    )
    measured = moments[: len(moments) * 9 // 10]
    return (len(measured) - 1) / (measured[-1] - measured[0]) if len(measured) > 1 else 0.0
