"""One run of the farm with sleeping workers, measured from outside.

The driver's CPU time is read from the system while it runs; what the workers did when stands in
the records.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.dispatch.stand_in import Work
from benchmarks.report import ROOT
from infra.local.ray_cluster import NO_METRICS, LocalRay
from pipelines.catalog.files.sources import PACKAGED_CONFIGS

SAMPLE_S = 1.0  # to look at all processes takes a share of a core
STARTS_AT_ONCE = 4  # worker processes; more would only share the cores
TURNS = "turns.json"
WORKER = "ray::"  # begins Ray's names of processes with an actor, and those of their threads
DEVICE_STAGES = ("text", "denoise", "decode")
SETTINGS = ("encoding.preset=ultrafast", "workers.num_cpus=1")


@dataclass(frozen=True)
class FarmCase:
    """One run: so many workers, each with so many clips of `clip_s` seconds."""

    num_workers: int
    clips_each: int
    clip_s: float
    work: Work

    def write_manifest(self, path: Path) -> None:
        rows = (
            {"name": f"clip-{seed}", "prompt": f"sunrise {seed}", "seed": seed}
            for seed in range(self.num_workers * self.clips_each)
        )
        size = {"num_inference_steps": 4, "num_frames": 5, "height": 32, "width": 32}
        path.write_text("".join(json.dumps(row | size) + "\n" for row in rows))


@dataclass(frozen=True)
class Sample:
    """The CPU seconds that processes have used up to a moment, by kind of process.

    Args:
        ray_in_workers_s: share of `workers_s` in threads of Ray's own.
    """

    at_s: float
    driver_s: float
    workers_s: float
    ray_s: float
    ray_in_workers_s: float = 0.0

    @property
    def all_s(self) -> float:
        return self.driver_s + self.workers_s + self.ray_s

    @classmethod
    def take(cls, driver: psutil.Process, cluster: LocalRay) -> "Sample":
        workers_s = ray_in_workers_s = others_s = 0.0
        for process in cluster.processes():
            try:
                used_s = _cpu_s(process)
                if process.name().startswith(WORKER):
                    workers_s += used_s
                    ray_in_workers_s += ray_threads_s(process.pid)
                else:
                    others_s += used_s
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue
        own_s = _cpu_s(driver)
        return cls(time.time(), own_s, workers_s, others_s - own_s, ray_in_workers_s)


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def ray_threads_s(pid: int) -> float:
    """Return the CPU seconds of the threads in a worker that run none of its Python code.

    Ray gives its own threads names. The main thread has the worker's, and after the actor's
    constructor it only runs Ray's loop, which wakes 100 times a second.
    """
    used_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            if task.name == str(pid) or not (task / "comm").read_text().startswith(WORKER):
                used_ns += int((task / "schedstat").read_text().split()[0])
    return used_ns / 1e9


def measure(case: FarmCase) -> dict[str, Any]:
    """Run the case on a cluster of its own and return its figures.

    The window is the time in which every worker has a clip: from the moment at which the last one
    began its first to that at which the first one ended its last.
    """
    folder = Path(tempfile.mkdtemp(prefix="nf-dispatch-"))
    environment = {
        **NO_METRICS,
        "XDG_CACHE_HOME": str(folder / "cache"),
        "RAY_worker_maximum_startup_concurrency": str(STARTS_AT_ONCE),
    }
    try:
        with LocalRay(case.num_workers, environment, has_dashboard=False) as cluster:
            samples = _run(case, folder, cluster)
        turns = json.loads((folder / TURNS).read_text())
        return figures_of(case, samples, list(_records(folder / "out")), turns)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(case: FarmCase, folder: Path, cluster: LocalRay) -> list[Sample]:
    case.write_manifest(folder / "rows.jsonl")
    (folder / "models").mkdir()
    shutil.copy(PACKAGED_CONFIGS / "models" / "shapes-wan.yaml", folder / "models" / "sleeper.yaml")
    command = [
        *(sys.executable, "-m", "benchmarks.dispatch.stand_in", str(case.clip_s), case.work),
        str(folder / TURNS),
        *("render", str(folder / "rows.jsonl"), "--models", str(folder / "models")),
        *("--model", "sleeper", "--output", (folder / "out").as_uri()),
        *(f"workers.count={case.num_workers}", *SETTINGS),
    ]
    environment = {**cluster.environment(), "RAY_ADDRESS": cluster.address}
    samples: list[Sample] = []
    with (folder / "log").open("w") as log:
        driver = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        process = psutil.Process(driver.pid)
        while driver.poll() is None:
            time.sleep(SAMPLE_S)
            try:
                samples.append(Sample.take(process, cluster))
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                break
    if driver.wait() != 0:
        sys.exit(f"the driver failed:\n{(folder / 'log').read_text()[-3000:]}")
    return samples


def _records(output: Path) -> Iterable[dict[str, Any]]:
    for path in (output / "records").rglob("*.json"):
        yield json.loads(path.read_text())


def figures_of(
    case: FarmCase,
    samples: list[Sample],
    records: list[dict[str, Any]],
    turns: list[tuple[float, float]],
) -> dict[str, Any]:
    """Return what the records and the samples of a run show.

    A device's busy share is that of its records, from its first clip to its last.

    Args:
        turns: when the loop got answers, and how long it worked on them.
    """
    stages: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)
    busy_s, idle_s = defaultdict[int, float](float), defaultdict[int, float](float)
    ends: list[float] = []
    for record in records:
        on_device = [one for one in record["timings"] if one["stage"] in DEVICE_STAGES]
        stages[record["worker"]["pid"]] += [
            (one["started_at"], one["started_at"] + one["duration_s"]) for one in on_device
        ]
        busy_s[record["worker"]["pid"]] += record["device_time"]["busy_s"]
        idle_s[record["worker"]["pid"]] += record["device_time"]["idle_s"]
        ends.append(max(one["started_at"] + one["duration_s"] for one in record["timings"]))
    begin_s = max(min(start for start, _ in one) for one in stages.values())
    end_s = min(max(end for _, end in one) for one in stages.values())
    busy = [busy_s[pid] / (busy_s[pid] + idle_s[pid]) for pid in stages]
    window = [one for one in samples if begin_s <= one.at_s <= end_s]
    if len(window) < 2:
        sys.exit(
            f"only {end_s - begin_s:.1f} s in which every worker had clips: too short to measure"
        )
    first, last = window[0], window[-1]
    num_clips = sum(first.at_s <= end <= last.at_s for end in ends)
    wall_s = last.at_s - first.at_s
    turns_ms = sorted(1e3 * for_s for at_s, for_s in turns if first.at_s <= at_s <= last.at_s)
    return {
        **asdict(case),
        "num_clips": len(records),
        "num_workers_seen": len(stages),
        "window_s": wall_s,
        "clips_in_window": num_clips,
        "busy_share": sum(busy) / len(busy),
        "least_busy_share": min(busy),
        "driver_ms": 1e3 * (last.driver_s - first.driver_s) / num_clips,
        "turn_ms": statistics.mean(turns_ms),
        "longest_turn_ms": turns_ms[-1],
        "workers_ms": 1e3 * (last.workers_s - first.workers_s) / num_clips,
        "ray_in_workers_ms": 1e3 * (last.ray_in_workers_s - first.ray_in_workers_s) / num_clips,
        "ray_ms": 1e3 * (last.ray_s - first.ray_s) / num_clips,
        "driver_share_of_core": (last.driver_s - first.driver_s) / wall_s,
        "cores_used": (last.all_s - first.all_s) / wall_s,
        "cores": os.cpu_count(),
    }
