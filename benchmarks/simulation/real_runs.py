"""Real runs of a stand-in without weights, on a Ray cluster of this machine."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.report import ROOT
from infra.local.ray_cluster import NO_METRICS, LocalRay
from jobs.records.commit import committed_ids, read_record
from jobs.settings.run_config import StoreConfig
from jobs.simulation.measured import read_measured
from jobs.store.store import Store, open_store
from tests.chaos.harness.workload import STAND_IN_SHAPE, write_models

MODEL = "stand-in"
STEPS = (4, 8, 16, 32)  # denoise steps of the clips, in turn
KILL_AT = 0.5  # share of the time that the clips need on their workers
WAIT_S = 600.0
SETTINGS = ("encoding.preset=ultrafast",)


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
        f"workers.spool_folder={manifest.parent / 'spool'}",
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
