"""`python -m benchmarks.simulation` compares simulated runs with real ones of the same clips.

A stand-in without weights renders on a real Ray cluster of this machine, on 1 to 8 workers, clips
of mixed length; in one run a worker is killed. Then the run is simulated, with the times of its own
records, and with the clips' times of the run on two workers. Last, large farms are simulated, for the cost of a simulation
itself.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import Benchmark, Measure, main
from benchmarks.report import ROOT, Cases, Figure, markdown_table
from infra.local.ray_cluster import NO_METRICS, LocalRay
from jobs.config import RunConfig, StoreConfig, load_config
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.plan.plan import Plan, make_plan
from jobs.plan.worker_kinds import WorkerKind
from jobs.records.commit import committed_ids, read_record
from jobs.simulation.conditions import ClipKind, ClipTimes, Conditions, Timings
from jobs.simulation.farm import Farm
from jobs.simulation.measured import read_measured
from jobs.simulation.planned import simulate_plan
from jobs.simulation.simulate import SimulatedKind, simulate
from jobs.store.store import Store, open_store
from pipelines.parallel_config import ONE_DEVICE
from pipelines.request import VideoShape
from tests.chaos.harness.workload import STAND_IN_SHAPE, write_models

MODEL = "stand-in"
STEPS = (4, 8, 16, 32)  # denoise steps of the clips, in turn
KILL_AT = 0.5  # share of the time that the clips need on their workers
WAIT_S = 600.0
REFERENCE = "2 workers"
FARMS = {"64 devices": (64, 20_000), "4,096 devices": (4096, 200_000)}  # and clips
SETTINGS = ("workers.spool_folder=spool", "encoding.preset=ultrafast")


@dataclass(frozen=True)
class Size:
    """The size of all runs.

    Args:
        step_s: seconds that a denoise step waits.
        num_clips: number of clips for each worker.
        workers: numbers of workers.
    """

    step_s: float = 0.16
    num_clips: int = 16
    workers: tuple[int, ...] = (1, 2, 4, 8)


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


def measure(size: Size, num_workers: int, *, is_killed: bool) -> dict[str, Any]:
    """Render on a real cluster, and return the wall time and the times in the records."""
    with tempfile.TemporaryDirectory(prefix="nagfarm-simulation-") as folder:
        manifest = write_manifest(Path(folder), size, num_workers)
        output = Path(folder, "out")
        with LocalRay(num_workers, NO_METRICS, has_dashboard=False) as cluster:
            killed_at_s = render(cluster, manifest, output, size, num_workers, is_killed=is_killed)
        store = open_store(output.as_uri(), StoreConfig())
        measured = read_measured(store, [MODEL], lambda: None)
        return {
            "size": asdict(size),
            "num_workers": num_workers,
            "measured_s": wall_s(store),
            "killed_at_s": killed_at_s,
            "clips": {kind.num_inference_steps: times for kind, times in measured.clips.items()},
            "starts_s": measured.starts_s[MODEL],
        }


def write_manifest(folder: Path, size: Size, num_workers: int) -> Path:
    """Write the rows, with clips of each length in turn."""
    write_models(folder / "models")
    rows = [
        {
            "prompt": f"sunrise {seed}",
            "seed": seed,
            "num_inference_steps": STEPS[seed % len(STEPS)],
            **STAND_IN_SHAPE,
        }
        for seed in range(size.num_clips * num_workers)
    ]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def render(
    cluster: LocalRay,
    manifest: Path,
    output: Path,
    size: Size,
    num_workers: int,
    *,
    is_killed: bool,
) -> float | None:
    """Run the real driver; return the second of the run in which a worker was killed, if one was.

    Raises:
        RuntimeError: the driver failed.
    """
    command = [
        *(sys.executable, "-m", "tests.chaos.harness.driver", "stand-in", str(size.step_s)),
        *("render", str(manifest), f"--models={manifest.parent / 'models'}", f"--model={MODEL}"),
        *(f"--output={output.as_uri()}", f"workers.count={num_workers}", *SETTINGS),
    ]
    log = manifest.with_suffix(".log")
    environment = {**cluster.environment(), "RAY_ADDRESS": cluster.address}
    with log.open("wb") as file:
        driver = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        killed_at_s = kill_worker(cluster, output, size) if is_killed else None
        code = driver.wait(WAIT_S)
    finally:
        driver.kill()
        driver.wait()
    if code:
        raise RuntimeError(f"the driver ended with {code}: {log.read_text(errors='replace')}")
    return killed_at_s


def kill_worker(cluster: LocalRay, output: Path, size: Size) -> float:
    """Kill one of the workers after half of the run, and return the second of the run."""
    while not (runs := list(output.glob("runs/*/run.json"))) or not list(output.glob("records/*")):
        time.sleep(0.05)
    time.sleep(KILL_AT * size.num_clips * sum(STEPS) / len(STEPS) * size.step_s)
    workers = [
        process
        for process in cluster.processes()
        if (process.cmdline() or [""])[0].startswith("ray::RenderActor")
    ]
    workers[0].kill()
    return time.time() - began_s(runs[0])


def began_s(run_file: Path) -> float:
    document = json.loads(run_file.read_text(encoding="utf-8"))
    return datetime.fromisoformat(document["started_at"]).timestamp()


def wall_s(store: Store) -> float:
    """Return the seconds from the start of the only run to its last commit."""
    (run_file,) = Path(store.uri.removeprefix("file://")).glob("runs/*/run.json")
    committed = [read_record(store, clip_id).committed_at for clip_id in committed_ids(store)]
    return datetime.fromisoformat(max(committed)).timestamp() - began_s(run_file)


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
    worker_kind = SimulatedKind(WorkerKind(MODEL, ONE_DEVICE), num_devices, [(kind, num_clips)])
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
    about=__doc__,
    libraries=("nagfarm", "ray"),
    cases=cases_of,
    figures=figures_of,
    body=body_of,
)


if __name__ == "__main__":
    main(BENCHMARK)
