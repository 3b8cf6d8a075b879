"""The benchmark of the driver: its stand-in worker, what it reads from a run, and its tiny form."""

import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import main
from benchmarks.dispatch import farm_run
from benchmarks.dispatch.__main__ import BENCHMARK
from benchmarks.dispatch.farm_run import FarmCase, Sample, ray_threads_s
from benchmarks.dispatch.stand_in import SleepingLoader
from jobs.records.commit import read_record
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from jobs.types import ClipDone
from jobs.worker.clip_worker import ClipWorker
from tests.builders.specs import setup_for, spec


@pytest.fixture
def own_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put back what the loader replaces in this process."""
    for module in [one for one in sys.modules.values() if one.__name__.startswith("jobs.")]:
        for name in ("encode_mp4", "check_mp4"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, getattr(module, name))


def test_a_light_worker_encodes_its_first_clip_and_commits_its_bytes_for_each(
    own_codec: None, tmp_path: Path
) -> None:
    setup = replace(setup_for(tmp_path), loader=SleepingLoader(0.0, "light"))
    worker = ClipWorker(setup, "node")
    worker.load()
    specs = [spec("sunrise", seed) for seed in range(2)]
    outcomes = [worker.render(one, 1) for one in specs]
    worker.close()
    assert [type(one) for one in outcomes] == [ClipDone, ClipDone], outcomes
    store = open_store(tmp_path.as_uri(), StoreConfig())
    assert len({read_record(store, one.clip_id).sha256 for one in specs}) == 1


def record(pid: int, start_s: float, idle_s: float) -> dict[str, Any]:
    """Return a clip that has the device for 1.8 s, and ends 2.5 s after its start."""
    stages = (("queue", -1.0, 1.0), ("text", 0.0, 0.3), ("denoise", 0.3, 1.5), ("upload", 1.8, 0.7))
    return {
        "worker": {"pid": pid},
        "device_time": {"busy_s": 1.8, "idle_s": idle_s},
        "timings": [
            {"stage": stage, "started_at": start_s + after_s, "duration_s": duration_s}
            for stage, after_s, duration_s in stages
        ],
    }


def test_cpu_is_counted_while_every_worker_has_a_clip_and_devices_are_busy_as_recorded() -> None:
    records = [record(1, 100.0 + 2 * turn, 0.2 * (turn > 0)) for turn in range(5)]
    records += [record(2, 103.0 + 2 * turn, 0.2 * (turn > 0)) for turn in range(4)]
    samples = [Sample(95.0 + at, 0.5 * at, 2.0 * at, 0.1 * at, 0.7 * at) for at in range(20)]
    turns = [(98.0, 9.0), (104.0, 0.001), (105.0, 0.003)]
    found = farm_run.figures_of(FarmCase(2, 5, 2.0, "full"), samples, records, turns)
    assert found["busy_share"] == pytest.approx((9.0 / 9.8 + 7.2 / 7.8) / 2)
    assert found["least_busy_share"] == pytest.approx(9.0 / 9.8)
    # from 103 to 109, in which five clips end
    assert (found["window_s"], found["clips_in_window"]) == (6.0, 5)
    assert found["driver_ms"] == pytest.approx(600)
    assert (found["workers_ms"], found["ray_in_workers_ms"]) == pytest.approx((2400, 840))
    assert found["cores_used"] == pytest.approx(2.6)
    assert (found["turn_ms"], found["longest_turn_ms"]) == pytest.approx((2.0, 3.0))


def test_threads_of_a_worker_with_its_name_are_not_those_of_ray() -> None:
    def burn(name: str) -> None:
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
        begin_s = time.thread_time()
        while time.thread_time() - begin_s < 0.1:
            pass
        used_s.append(ray_threads_s(os.getpid()))

    def used_by(name: str) -> float:
        before_s = ray_threads_s(os.getpid())
        thread = threading.Thread(target=burn, args=(name,))
        thread.start()
        thread.join()
        return used_s[-1] - before_s

    used_s = list[float]()
    assert used_by("worker.io") > 0.09
    assert used_by("ray::RenderActo") < 0.05


def test_the_tiny_form_writes_the_costs_of_the_schedule(tmp_path: Path) -> None:
    main(BENCHMARK, [str(tmp_path / "dispatch"), "--tiny", "--schedule-only"])
    document = json.loads((tmp_path / "dispatch.json").read_text())
    assert [case["num_workers"] for case in document["cases"].values()] == [8, 100]
    assert all(case["heartbeat_us"] > 0 for case in document["cases"].values())
    assert "a clip, schedule, 100 workers / schedule, 8 workers" in document["figures"]
    assert "| 100 |" in (tmp_path / "dispatch.md").read_text()
