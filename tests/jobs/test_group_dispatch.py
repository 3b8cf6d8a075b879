"""Groups of ranks on a real Ray cluster, through the dispatcher, with a family that fails on the rank it is told to."""

from dataclasses import replace
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.config import RunConfig, StallPolicy, WorkerConfig
from jobs.dispatch import Dispatcher
from jobs.types import ClipSpec
from jobs.worker import WorkerSetup
from pipelines.parallel.config import ParallelConfig
from tests.fakes.ranks import load_fake_rank
from tests.jobs.specs import setup_for, spec
from tests.jobs.test_dispatch import Notes, committed

pytestmark = pytest.mark.cluster

PAIR = ParallelConfig(ulysses=2)
CONFIG = RunConfig(
    workers=WorkerConfig(count=1, num_cpus=1),
    stall=StallPolicy(beat_interval_s=0.5, beat_timeout_s=6, first_s=60, factor=3, min_s=6),
)


def pair_for(folder: Path) -> WorkerSetup:
    return replace(setup_for(folder), load_model=load_fake_rank, parallel=PAIR)


def dispatch(folder: Path, specs: list[ClipSpec], notes: Notes | None = None) -> Notes:
    notes = notes or Notes()
    Dispatcher(pair_for(folder), CONFIG, 1, 0, notes).run(iter(specs))
    return notes


def test_a_group_renders_clips_as_a_worker_does(ray_driver: LocalRay, tmp_path: Path) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    notes = dispatch(tmp_path, specs)
    assert committed(tmp_path) == {one.clip_id for one in specs}
    assert not notes.failed
    assert not notes.lost
    assert "group of 2: ulysses 2; pids" in notes.ready[0]
