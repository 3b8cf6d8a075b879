"""Run one side of a comparison as a program of its own, and return its figures.

A side begins when its program is started, so that its imports and the load of the model count.
"""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.baselines.workload import (
    STAGES,
    ClipTimes,
    Guidance,
    Script,
    Workload,
    plain_environment,
    read_times,
    summarize,
)
from benchmarks.report import ROOT
from jobs.records.commit import committed_ids, read_record
from jobs.records.schema import ClipRecord
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store

LAST_LINES = 20
NO_RAY_DATA = (
    "Ray Data is left out, since it needs pyarrow and pandas: "
    "pip install -c constraints.txt 'ray[data]'"
)
ONE_SCRIPT = "the script"  # in place of a process id, for a process a prompt


def has_ray_data() -> bool:
    """Return True if the packages of Ray Data are there; say so on stderr if they are not."""
    is_there = all(importlib.util.find_spec(name) for name in ("pyarrow", "pandas"))
    if not is_there:
        print(NO_RAY_DATA, file=sys.stderr, flush=True)
    return is_there


def run_farm(
    workload: Workload, output: str, num_workers: int, settings: Sequence[str] = ()
) -> dict[str, Any]:
    """Render with `nagfarm render` on the cluster of RAY_ADDRESS, or on one that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder, "comparison.jsonl")
        rows = "".join(json.dumps(row) + "\n" for row in workload.rows())
        manifest.write_text(rows, encoding="utf-8")
        models = [f"--models={workload.models}"] if workload.models else []
        command = [
            *("-m", "nagfarm", "render", str(manifest), "--output", output, *models),
            *(f"workers.count={num_workers}", *settings),
        ]
        launched_at = _run(command, os.environ)
    store = open_store(output, StoreConfig())
    records = [read_record(store, clip_id) for clip_id in sorted(committed_ids(store))]
    figures = summarize(launched_at, num_workers, [times_of(record) for record in records])
    load_s = max(record.stage_totals_s.get("load", 0.0) for record in records)
    return figures | {"load_s": load_s, "device": records[0].worker.device}


def run_plain(
    workload: Workload, guidance: Guidance, output: str, device: str, *, process_a_prompt: bool
) -> dict[str, Any]:
    """Render with a loop over a `WanPipeline`, in one process or in one for each prompt."""
    script = Script.of(workload, guidance, output, device)
    parts = [script]
    if process_a_prompt:
        parts = [replace(script, clips=(clip,)) for clip in script.clips]
    program = "benchmarks.baselines.plain"
    found = [_run_script(program, part, plain_environment()) for part in parts]
    clips = [clip for _, times in found for clip in times]
    if process_a_prompt:
        clips = [replace(clip, worker=ONE_SCRIPT) for clip in clips]
    return summarize(found[0][0], 1, clips)


def run_ray_data(
    workload: Workload, guidance: Guidance, output: str, device: str, num_actors: int
) -> dict[str, Any]:
    """Render with Ray Data's `map_batches` on the cluster of RAY_ADDRESS, or on one of its own."""
    script = Script.of(workload, guidance, output, device)
    launched_at, clips = _run_script(
        "benchmarks.baselines.ray_data", script, os.environ, str(num_actors)
    )
    return summarize(launched_at, num_actors, clips)


def times_of(record: ClipRecord) -> ClipTimes:
    """Return a record's times; uploading ends with the commit."""
    device = [timing for timing in record.timings if timing.stage == "text"]
    totals = record.stage_totals_s
    return ClipTimes(
        record.name,
        f"{record.worker.host}:{record.worker.pid}",
        device[0].started_at,
        {stage: totals[stage] for stage in STAGES},
        datetime.fromisoformat(record.committed_at).timestamp(),
        record.peak_memory_bytes,
    )


def _run_script(
    program: str, script: Script, environment: Mapping[str, str], *arguments: str
) -> tuple[float, list[ClipTimes]]:
    with tempfile.TemporaryDirectory() as folder:
        path, times = Path(folder, "script.json"), Path(folder, "times.jsonl")
        script.write(path)
        launched_at = _run(["-m", program, str(path), str(times), *arguments], environment)
        return launched_at, read_times(times)


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> float:
    """Run a Python program and return the moment of its start."""
    launched_at = time.time()
    finished = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode:
        lines = "\n".join(finished.stdout.splitlines()[-LAST_LINES:])
        sys.exit(f"{' '.join(arguments[:3])} failed with exit code {finished.returncode}:\n{lines}")
    return launched_at
