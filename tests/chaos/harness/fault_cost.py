"""What a mix of faults costs: committed clips per second under it, against the same clips without a fault.

Decides how the two are compared. A killed actor costs the clip that it computed and a new process, about six seconds
here; clips take fifteen, as on a farm where loading a model takes 0.4 of a clip's time. They wait and do not compute,
so that the machine is no limit. Both runs are measured in turn, from the first commit to that of nine clips in ten: at
a run's end actors run out of clips, which is a far smaller part of a night. The medians are compared.
"""

import statistics
from datetime import datetime
from pathlib import Path

from jobs.cli.command import EXIT_QUARANTINE
from jobs.records.commit import committed_ids, read_record
from tests.chaos.harness.farm import Farm
from tests.chaos.harness.fault_mix import MIX, inject_mix, poison_for
from tests.chaos.harness.report import put_between_markers, write_numbers
from tests.chaos.harness.runner import Scenario, Scene, play, undisturbed
from tests.chaos.harness.workload import Workload

NUM_CLIPS, STEPS, STEP_S = 120, 20, 0.75
NUM_ACTORS, NODE_CPUS = 8, 8  # either of two nodes has room for all
SETTINGS = (f"workers.count={NUM_ACTORS}",)
LEAST_SHARE = 0.9


def measure_mix(folder: Path, repeats: int, seed: int, report: Path | None) -> int:
    """Runs both, in turn, and says what share of the rate is kept; returns 1 if it is too small or a run is unclean."""
    workload = Workload(NUM_CLIPS, STEPS, STEP_S, poison_for(NUM_CLIPS))
    calm = Scenario("mix-calm", "none", workload.healthy, undisturbed, settings=SETTINGS)
    mixed = Scenario(
        "mix-faults", MIX, workload, inject_mix(look_away), (EXIT_QUARANTINE,), SETTINGS
    )
    rates: dict[str, list[float]] = {calm.name: [], mixed.name: []}
    is_clean = True
    with Farm(folder, seed, node_cpus=NODE_CPUS) as farm:
        for turn in range(repeats):
            for scenario in (calm, mixed):
                outcome = play(scenario, farm, seed, turn)
                rates[scenario.name].append(commits_per_s(farm, f"{scenario.name}-{turn}"))
                is_clean = is_clean and outcome.is_clean
                print(
                    f"{scenario.name}: {rates[scenario.name][-1]:.3f} clips/s, {outcome.wall_s:.0f} s",
                    flush=True,
                )
                for line in (*outcome.problems, *outcome.audit.violations):
                    print(f"    {line}", flush=True)
    calm_rate, mixed_rate = (statistics.median(rates[scenario.name]) for scenario in (calm, mixed))
    share = mixed_rate / calm_rate
    text = (
        f"Under {MIX}: {mixed_rate:.3f} clips per second, {calm_rate:.3f} without faults, a share of {share:.3f} "
        f"(medians of {repeats}; {NUM_CLIPS} clips of {STEPS * STEP_S:g} s on {NUM_ACTORS} actors)."
    )
    print(text)
    if report is not None:
        put_between_markers(report.with_suffix(".md"), "mix", text)
        write_numbers(report.with_suffix(".json"), "mix", {"clips_per_s": rates, "share": share})
    return 0 if is_clean and share >= LEAST_SHARE else 1


def look_away(_scene: Scene) -> None:
    """Nothing is sampled: it would disturb what is measured."""


def commits_per_s(farm: Farm, prefix: str) -> float:
    """From the first commit of an output to that of nine clips in ten."""
    store = farm.store(prefix)
    moments = sorted(
        datetime.fromisoformat(read_record(store, clip_id).committed_at).timestamp()
        for clip_id in committed_ids(store)
    )
    measured = moments[: len(moments) * 9 // 10]
    return (len(measured) - 1) / (measured[-1] - measured[0]) if len(measured) > 1 else 0.0
