"""A long run of many short clips under a mix of faults, to find lost clips and growing processes.

Growth is the difference between the means of the first and of the last quarter of the run.
"""

import contextlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from jobs.cli.pattern.command import EXIT_QUARANTINE
from tests.chaos.harness.farm import Farm
from tests.chaos.harness.fault_mix import FAULT_MIX, inject_fault_mix, poison_for
from tests.chaos.harness.report import as_numbers, paragraph, put_between_markers, write_numbers
from tests.chaos.harness.runner import Outcome, Scenario, ScenarioRun, run_scenario
from tests.chaos.harness.workload import Workload

STEPS, STEP_S = 4, 0.01
SETTINGS = ("workers.count=3",)


@dataclass(frozen=True)
class ProcessSample:
    """One process at one moment.

    Args:
        at_s: seconds since the soak began.
        age_s: age of the process in seconds.
    """

    kind: str
    pid: int
    at_s: float
    age_s: float
    memory_bytes: int
    num_files: int


def soak(folder: Path, num_clips: int, seed: int, report: Path | None) -> int:
    """Run the soak and print its result; return 1 if an invariant broke, else 0."""
    samples: list[ProcessSample] = []
    started = time.monotonic()

    def take_samples(run: ScenarioRun) -> None:
        now = time.monotonic() - started
        samples.extend(sample("driver", run.driver.pid, now))
        for actor in run.farm.actors():
            samples.extend(sample("actor", actor.pid, now))

    workload = Workload(num_clips, STEPS, STEP_S, poison_for(num_clips))
    scenario = Scenario(
        "soak", FAULT_MIX, workload, inject_fault_mix(take_samples), (EXIT_QUARANTINE,), SETTINGS
    )
    with Farm(folder, seed) as farm:
        outcome = run_scenario(scenario, farm, seed)
    means = growth(samples)
    lines = describe(outcome, means, len({one.pid for one in samples if one.kind == "actor"}))
    print(lines)
    if report is not None:
        put_between_markers(report.with_suffix(".md"), "soak", lines)
        numbers = {**as_numbers(outcome, 0.0), "growth": means}
        write_numbers(report.with_suffix(".json"), "soak", numbers)
    return 0 if outcome.is_clean else 1


def sample(kind: str, pid: int, now: float) -> list[ProcessSample]:
    """Return one sample of a process, or none if the process is gone."""
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        process = psutil.Process(pid)
        age_s = time.time() - process.create_time()
        return [ProcessSample(kind, pid, now, age_s, process.memory_info().rss, process.num_fds())]
    return []


ROWS: tuple[tuple[str, str, Callable[[ProcessSample], float]], ...] = (
    ("driver's memory in MiB", "driver", lambda one: one.memory_bytes / 2**20),
    ("driver's open files", "driver", lambda one: one.num_files),
    ("memory of an actor in MiB", "actor", lambda one: one.memory_bytes / 2**20),
    ("open files of an actor", "actor", lambda one: one.num_files),
)


def growth(samples: Sequence[ProcessSample]) -> dict[str, tuple[float, float]]:
    """Return the means over the first and over the last quarter of the run's time.

    Processes younger than 10 s do not count, since they are still starting.
    """
    means: dict[str, tuple[float, float]] = {}
    for name, kind, value in ROWS:
        grown = [one for one in samples if one.kind == kind and one.age_s > 10]
        if not grown:
            continue
        first, last = grown[0].at_s, grown[-1].at_s
        quarter_s = (last - first) / 4
        early = statistics.fmean(value(one) for one in grown if one.at_s <= first + quarter_s)
        late = statistics.fmean(value(one) for one in grown if one.at_s >= last - quarter_s)
        means[name] = early, late
    return means


def describe(outcome: Outcome, means: Mapping[str, tuple[float, float]], num_actors: int) -> str:
    found = outcome.audit
    counts = (
        f"{found.num_planned:,} clips in {outcome.wall_s:.0f} s "
        f"on {num_actors} actors, one after another, "
        f"{outcome.num_injected:,} faults ({outcome.fault}): "
        f"{found.num_committed:,} committed, {found.num_quarantined:,} in quarantine, "
        f"{len(found.lost)} lost, {len(found.duplicated)} duplicated, "
        f"{len(found.mismatched)} mismatched, {len(found.orphans)} left running."
    )
    return "\n".join([
        paragraph(counts),
        *(f"- {line}" for line in (*outcome.problems, *found.violations)),
        "",
        "| | first quarter | last quarter |",
        "| --- | ---: | ---: |",
        *(f"| {name} | {early:.1f} | {late:.1f} |" for name, (early, late) in means.items()),
    ])  # fmt: skip
