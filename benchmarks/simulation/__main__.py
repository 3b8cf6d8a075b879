"""`python -m benchmarks.simulation` compares simulated runs with real ones of the same clips.

A stand-in without weights renders on a real Ray cluster of this machine, on 1 to 8 workers, clips
of mixed length; in one run a worker is killed. Then the run is simulated, with the times of its own
records, and with the clips' times of the run on two workers. Last, large farms are simulated, for
the cost of a simulation itself.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import Benchmark, Measure, main
from benchmarks.report import Cases, Figure, markdown_table
from benchmarks.simulation.real_runs import MODEL, SETTINGS, STEPS, Size, measure, write_manifest
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.plan.plan import Plan, make_plan
from jobs.plan.worker_kinds import WorkerKind
from jobs.settings.run_config import RunConfig, load_config
from jobs.simulation.conditions import ClipKind, ClipTimes, Conditions, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.planned import simulate_plan
from jobs.simulation.simulate import SimulatedKind, simulate
from pipelines.parallel_config import ONE_DEVICE
from pipelines.request import VideoShape

REFERENCE = "2 workers"
FARMS = {"64 devices": (64, 20_000), "4,096 devices": (4096, 200_000)}  # and clips


TINY = Size(step_s=0.01, num_clips=4, workers=(2,))


def cases_of(options: argparse.Namespace) -> Mapping[str, Measure]:
    size = TINY if options.tiny else Size()
    plain: dict[str, Measure] = {
        name_of(number): partial(measure, size, number, is_killed=False) for number in size.workers
    }
    if options.tiny:
        return plain
    farms = {name: partial(simulate_farm, *farm) for name, farm in FARMS.items()}
    return plain | {"4 workers, one killed": partial(measure, size, 4, is_killed=True)} | farms


def name_of(num_workers: int) -> str:
    return "1 worker" if num_workers == 1 else f"{num_workers} workers"


def predict_s(case: Mapping[str, Any], times: Mapping[str, Any]) -> float:
    """Simulate the run of a case with the clips' times of the same or of another case."""
    with tempfile.TemporaryDirectory(prefix="nagfarm-simulation-") as folder:
        plan, catalog, config = opened(Path(folder), Size(**case["size"]), case["num_workers"])
        by_steps = {int(steps): found for steps, found in times["clips"].items()}
        clips = {
            ClipKind.of(bucket): [
                ClipTimes(*found) for found in by_steps[bucket.num_inference_steps]
            ]
            for bucket in plan.buckets
        }
        killed_at_s = case["killed_at_s"]
        conditions = Conditions(
            case["num_workers"], losses_s=() if killed_at_s is None else (killed_at_s,)
        )
        timings = Timings(clips, {MODEL: case["starts_s"]})
        return simulate_plan(plan, catalog, config, timings, conditions).wall_s


def opened(folder: Path, size: Size, num_workers: int) -> tuple[Plan, ModelCatalog, RunConfig]:
    """Return the plan of a case, its catalog and its settings."""
    path = write_manifest(folder, size, num_workers)
    catalog = ModelCatalog(folder / "models")
    plan = make_plan(open_manifest(path, catalog, model=MODEL), (), ())
    return plan, catalog, load_config(None, [*SETTINGS])


def simulate_farm(num_devices: int, num_clips: int) -> dict[str, Any]:
    """Simulate a farm with faults, and return the processor's time for it and the memory."""
    kind = ClipKind(MODEL, VideoShape(81, 480, 832), 8, ONE_DEVICE)
    times = [ClipTimes(60.0 + second, 4.0, 1.0, 10**6) for second in range(10)]
    worker_kind = SimulatedKind(
        WorkerKind(MODEL, ONE_DEVICE),
        Demand(ONE_DEVICE, RankResources(1, num_gpus=1), num_clips),
        [(kind, num_clips)],
    )
    farm = Farm(Conditions(num_devices, failures=0.001, preemptions=0.01))
    begin_s = time.process_time()
    outcome = simulate([worker_kind], Timings({kind: times}, {MODEL: [60.0]}), farm, RunConfig())
    cpu_s = time.process_time() - begin_s
    return {
        "num_done": outcome.num_done,
        "num_workers_lost": outcome.num_workers_lost,
        "cpu_s_per_clip": cpu_s / num_clips,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def figures_of(cases: Cases) -> Iterable[Figure]:
    if cases.keys() >= FARMS.keys():
        small, large = (cases[name]["cpu_s_per_clip"] for name in FARMS)
        name = "processor's time for a clip, 4,096 devices / 64 devices"
        yield Figure(name, large / small, goal=2.0, margin=0.5)
    for name, case in runs_of(cases).items():
        ratio = predict_s(case, case) / case["measured_s"]
        yield Figure(f"deviation of the prediction, {name}", abs(ratio - 1), goal=0.05)


def runs_of(cases: Cases) -> Cases:
    """Return the cases that were rendered."""
    return {name: case for name, case in cases.items() if name not in FARMS}


def body_of(cases: Cases) -> str:
    """Return the tables of predicted and measured wall times, and of simulated farms."""
    reference = cases.get(REFERENCE)
    rows: list[tuple[str, ...]] = []
    for name, case in runs_of(cases).items():
        own_s = predict_s(case, case)
        other = f"{predict_s(case, reference) / case['measured_s']:.3f}" if reference else ""
        num_clips = sum(len(times) for times in case["clips"].values())
        rows.append(
            (
                name,
                f"{num_clips}",
                f"{case['measured_s']:.1f}",
                f"{own_s:.1f}",
                f"{own_s / case['measured_s']:.3f}",
                other,
            )
        )
    head = ("run", "clips", "measured, s", "predicted, s", "predicted / measured",
            f"with the clips' times of {REFERENCE}")  # fmt: skip
    return f"""\
A stand-in renders clips of {", ".join(map(str, STEPS))} denoise steps in turn. The measured time
goes from the start of the run to its last commit. The prediction draws the clips' times and the
starts of the workers from the records of the same run; the last column draws the clips' times from
the run on two workers.

{markdown_table(head, rows)}
{farms_text(cases)}"""


def farms_text(cases: Cases) -> str:
    rows = [
        (
            name,
            f"{num_clips:,}",
            f"{case['num_workers_lost']:,}",
            f"{case['cpu_s_per_clip'] * 1e6:.0f}",
            f"{case['peak_memory_mb']:.0f}",
        )
        for name, (_, num_clips) in FARMS.items()
        if (case := cases.get(name)) is not None
    ]
    if not rows:
        return ""
    head = ("farm", "clips", "workers lost", "microseconds of a core for a clip", "memory, MB")
    return f"""\
Larger farms, with failures and preemptions; the memory is that of the whole program:

{markdown_table(head, rows)}"""


BENCHMARK = Benchmark(
    name="simulation",
    title="Simulated runs beside real ones",
    about=__doc__ or "",
    libraries=("nagfarm", "ray"),
    cases=cases_of,
    figures=figures_of,
    body=body_of,
)


if __name__ == "__main__":
    main(BENCHMARK)
