"""Starts as a schedule makes them, by the command of the crontab, on a real cluster and a real S3.

The clock is real; configuration alone makes leases and deadlines short.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from infra.local.s3_server import LocalS3
from jobs.ending import ExitCode
from jobs.overview.output_status import read_output_status
from jobs.records.commit import committed_ids, read_record
from jobs.records.keys import SUMMARY_FILE, list_keys
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from tests.builders.manifests import jsonl
from tests.infra.test_schedules import cron_line

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

REPOSITORY = Path(__file__).parents[2]
NUM_CLIPS, NUM_STEPS, STEP_S = 100, 5, 0.1  # 50 s of sleep on one worker
WAIT_S = 240.0
DATE = "2026-01-31"


@dataclass
class Starts:
    """Starts the command of the crontab on one output, named after a day."""

    cluster: LocalRay
    folder: Path
    bucket_folder: str
    started: list[subprocess.Popen[str]] = field(default_factory=list["subprocess.Popen[str]"])

    def __post_init__(self) -> None:
        rows = [
            {
                "prompt": "a circle",
                "seed": seed,
                "num_inference_steps": NUM_STEPS,
                "model": "shapes-wan",
            }
            for seed in range(NUM_CLIPS)
        ]
        (self.folder / "spring.jsonl").write_text(jsonl(rows))

    @property
    def store(self) -> Store:
        return open_store(f"{self.bucket_folder}/{DATE}", StoreConfig())

    def start(self, *options: str, deadline: str = "23h") -> subprocess.Popen[str]:
        """Start the driver as cron does, with the paths and the settings of this test."""
        _, command = cron_line()
        driver = f"{sys.executable} -m tests.chaos.harness.driver stand-in {STEP_S}"
        output = f"--output '{self.bucket_folder}/{{date}}' --date {DATE}"
        settings = "workers.count=1 store.lease_s=4 stall.heartbeat_interval_s=0.5"
        for old, new in (
            ("/srv/nagfarm", str(REPOSITORY)),
            ("/opt/nagfarm/bin/nagfarm", driver),
            ("spring.yaml", f"{self.folder / 'spring.jsonl'} {output} {settings}"),
            ("--deadline 08:00", f"--deadline {deadline} {' '.join(options)}"),
            (" >>night.log 2>&1", ""),
        ):
            assert old in command
            command = command.replace(old, new)
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec 2>&1; {command}".replace("&& ", "&& exec ")],
            env={**os.environ, "RAY_ADDRESS": self.cluster.address},
            stdout=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.1)

    def num_committed(self) -> int:
        return len(committed_ids(self.store))

    def summaries(self) -> list[dict[str, object]]:
        keys = [parsed.key for parsed in list_keys(self.store, "run file")]
        return [json.loads(self.store.get(key)) for key in keys if key.endswith(SUMMARY_FILE)]


@pytest.fixture
def starts(ray_cluster: LocalRay, s3_environment: LocalS3, tmp_path: Path) -> Iterator[Starts]:
    found = Starts(ray_cluster, tmp_path, f"s3://renders/{tmp_path.name}")
    yield found
    for process in found.started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=WAIT_S)
    return process.returncode, printed


def test_starts_that_overlap_follow_a_death_meet_a_deadline_or_come_after_success(
    starts: Starts,
) -> None:
    # the first start renders; one beside it refuses, at once or after the time of its wait
    first = starts.start()
    starts.wait_for(lambda: starts.num_committed() >= 2)
    beside, waiting = starts.start(), starts.start("--wait", "2s")
    code, printed = ended(beside)
    assert code == ExitCode.BUSY, printed
    assert "is leased by another driver: run " in printed
    code, printed = ended(waiting)
    assert code == ExitCode.BUSY, printed
    assert "waiting for s3://" in printed
    assert "is still leased by another driver after a wait" in printed
    assert first.poll() is None

    # the first one dies; a start that waits takes over, renders on, and comes to its deadline
    first.kill()
    first.wait()
    before = starts.num_committed()
    second = starts.start("--wait", "30s", deadline="5h")
    starts.wait_for(lambda: starts.num_committed() > before)
    second.terminate()
    code, printed = ended(second)
    assert code == ExitCode.STOPPED, printed
    before = starts.num_committed()
    assert 2 < before < NUM_CLIPS
    limited = starts.start(deadline="20s")
    code, printed = ended(limited)
    assert code == ExitCode.DEADLINE, printed
    left = NUM_CLIPS - starts.num_committed()
    assert f"{left} of {NUM_CLIPS - before} clips are left" in printed
    assert [one["num_left"] for one in starts.summaries() if _is_late(one)] == [left]

    # the next start resumes, and one after success does nothing
    code, printed = ended(starts.start())
    assert code == ExitCode.OK, printed
    assert starts.num_committed() == NUM_CLIPS
    num_runs = len(starts.summaries())
    code, printed = ended(starts.start())
    assert code == ExitCode.OK, printed
    assert f"nothing to render: {NUM_CLIPS} of {NUM_CLIPS} clips are already in" in printed
    assert len(starts.summaries()) == num_runs

    # each clip was committed once, by the runs of one output
    records = [read_record(starts.store, one) for one in committed_ids(starts.store)]
    assert max(Counter(record.clip_id for record in records).values()) == 1
    assert len({record.run_id for record in records}) >= 3
    run = read_output_status(starts.store).run
    assert run is not None
    assert run.output_day is not None
    assert (run.output_day.date, run.output_day.time_zone) == (DATE, "Europe/Berlin")


def _is_late(summary: dict[str, object]) -> bool:
    stop = summary["stop"]
    return isinstance(stop, dict) and stop["error_type"] == "DeadlineReachedError"
