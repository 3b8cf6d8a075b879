"""The dispatcher on a real Ray cluster, with a family that fails on demand."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.config import RetryPolicy, RunConfig, StoreConfig, WorkerConfig
from jobs.dispatch import Dispatcher, cluster_nodes, cluster_resources, count_workers
from jobs.errors import NoWorkersError, StoreRefusedError
from jobs.events import Attempt
from jobs.records import committed_ids, read_record
from jobs.retry import Decision, GiveUp, Retry
from jobs.store import open_store
from jobs.types import ClipDone, ClipFailed, ClipSpec, WorkerBeat
from jobs.worker import WorkerSetup
from tests.fakes.family import load_nothing
from tests.jobs.specs import setup_for, spec

pytestmark = pytest.mark.cluster

CONFIG = RunConfig(workers=WorkerConfig(count=2, num_cpus=1), retry=RetryPolicy())


@dataclass
class Notes:
    """An observer that remembers."""

    gate: Path | None = None  # appears when two workers are ready
    ready: list[str] = field(default_factory=list[str])
    lost: list[str] = field(default_factory=list[str])
    replaced: list[str] = field(default_factory=list[str])
    beats: list[WorkerBeat] = field(default_factory=list[WorkerBeat])
    started: list[tuple[str, Attempt]] = field(default_factory=list[tuple[str, Attempt]])
    done: list[ClipDone] = field(default_factory=list[ClipDone])
    failed: list[tuple[ClipFailed, Decision]] = field(default_factory=list[tuple[ClipFailed, Decision]])

    def worker_ready(self, label: str, device: str) -> None:
        self.ready.append(label)
        if self.gate is not None and len(self.ready) == 2:
            self.gate.touch()

    def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
        (self.lost if is_lost else self.replaced).append(f"{label}: {message}")

    def worker_beat(self, beat: WorkerBeat) -> None:
        self.beats.append(beat)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        self.started.append((label, attempt))

    def turn(self) -> None:
        """Nothing to do."""

    def clip_done(self, done: ClipDone) -> None:
        self.done.append(done)

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        self.failed.append((failed, decision))


def dispatch(setup: WorkerSetup, specs: list[ClipSpec], config: RunConfig = CONFIG, gate: Path | None = None) -> Notes:
    notes = Notes(gate)
    Dispatcher(setup, config, 2, 0, notes).run(iter(specs))
    return notes


def committed(folder: Path) -> set[str]:
    return committed_ids(open_store(folder.as_uri(), StoreConfig()))


def test_every_clip_is_committed_once_by_several_workers(ray_driver: LocalRay, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    specs = [spec(f"wait {gate}", seed) for seed in range(12)]
    notes = dispatch(setup_for(tmp_path), specs, gate=gate)
    assert committed(tmp_path) == {one.clip_id for one in specs} == {done.clip_id for done in notes.done}
    assert len(notes.done) == 12
    assert len(set(notes.ready)) == 2
    assert not notes.failed
    assert not notes.lost


def test_a_failing_clip_does_not_stop_the_others(ray_driver: LocalRay, tmp_path: Path) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    notes = dispatch(setup_for(tmp_path), [*specs[:2], spec("error"), *specs[2:]])
    assert committed(tmp_path) == {one.clip_id for one in specs}
    ((failed, decision),) = notes.failed
    assert "the model did not like it" in failed.traceback
    assert isinstance(decision, GiveUp)


def test_a_killed_worker_is_replaced_and_its_clip_is_rendered_by_another(ray_driver: LocalRay, tmp_path: Path) -> None:
    specs = [spec("sunrise", seed) for seed in range(4)]
    fatal = spec(f"die once {tmp_path / 'died'}")
    notes = dispatch(setup_for(tmp_path), [fatal, *specs])
    assert committed(tmp_path) == {fatal.clip_id, *(one.clip_id for one in specs)}
    assert len(notes.lost) == 1
    assert {decision for _, decision in notes.failed} == {Retry(2)}
    record = read_record(open_store(tmp_path.as_uri(), StoreConfig()), fatal.clip_id)
    assert record.attempt == 2


def test_a_clip_that_kills_every_worker_is_given_up_and_blames_no_other(ray_driver: LocalRay, tmp_path: Path) -> None:
    specs = [spec("sunrise", seed) for seed in range(6)]
    poison = spec("die")
    notes = dispatch(setup_for(tmp_path), [specs[0], poison, *specs[1:]])
    assert committed(tmp_path) == {one.clip_id for one in specs}
    assert len(notes.lost) == 3
    given_up = [failed.clip_id for failed, decision in notes.failed if isinstance(decision, GiveUp)]
    assert given_up == [poison.clip_id]


def test_clips_are_taken_from_the_plan_only_when_a_worker_has_room(ray_driver: LocalRay, tmp_path: Path) -> None:
    notes, ahead = Notes(), []

    def specs() -> Iterator[ClipSpec]:
        for seed in range(30):
            ahead.append(seed - len(notes.done))
            yield spec("sunrise", seed)

    Dispatcher(setup_for(tmp_path), CONFIG, 2, 0, notes).run(specs())
    room = 2 * (CONFIG.workers.spool_clips + 1)
    assert max(ahead) <= room


def test_weights_that_do_not_load_stop_the_run(ray_driver: LocalRay, tmp_path: Path) -> None:
    with pytest.raises(NoWorkersError, match="no worker is to be had: could not load fake: the weights are broken"):
        dispatch(replace(setup_for(tmp_path), load_model=load_nothing), [spec("sunrise")])


def test_workers_that_find_no_place_do_not_stop_those_that_have_one(ray_driver: LocalRay, tmp_path: Path) -> None:
    """Four workers are wanted where two have room; the pending ones are given up, the run is not."""
    config = replace(CONFIG, workers=WorkerConfig(count=4, num_cpus=1, load_timeout_s=40))
    gate = tmp_path / "gate"
    specs = [spec(f"wait {gate}", seed) for seed in range(12)]

    class Opening(Notes):
        def worker_stopped(self, label: str, message: str, *, is_ready: bool, is_lost: bool) -> None:
            super().worker_stopped(label, message, is_ready=is_ready, is_lost=is_lost)
            if len(self.lost) == 2:
                gate.touch()

    notes = Opening()
    Dispatcher(setup_for(tmp_path), config, 4, 0, notes).run(iter(specs))
    assert len(notes.done) == 12
    assert len(notes.lost) >= 2
    assert all("not ready within 40 s" in message for message in notes.lost)


def test_a_store_that_takes_nothing_stops_the_run_and_gives_no_clip_up(ray_driver: LocalRay, tmp_path: Path) -> None:
    (tmp_path / "clips").write_text("in the way")
    notes = Notes()
    with pytest.raises(StoreRefusedError):
        Dispatcher(setup_for(tmp_path), CONFIG, 2, 0, notes).run(iter([spec("sunrise")]))
    assert not any(isinstance(decision, GiveUp) for _, decision in notes.failed)


def test_the_cluster_says_what_it_has(ray_driver: LocalRay) -> None:
    assert cluster_resources()["CPU"] == 2
    (node,) = cluster_nodes()
    assert node["node_id"]


@pytest.mark.parametrize(
    ("resources", "count", "num_gpus", "num_clips", "expected"),
    [
        ({"CPU": 8.0}, None, 0, 100, 8),
        ({"CPU": 8.0}, None, 0, 3, 3),
        ({"CPU": 8.0}, 2, 0, 100, 2),
        ({"CPU": 64.0, "GPU": 4.0}, None, 1, 100, 4),
    ],
)
def test_there_is_a_worker_for_each_device(
    resources: dict[str, float], count: int | None, num_gpus: int, num_clips: int, expected: int
) -> None:
    config = replace(CONFIG, workers=WorkerConfig(count=count))
    assert count_workers(resources, config, num_gpus, num_clips) == expected


def test_a_cluster_without_a_gpu_is_refused_for_a_model_that_needs_one() -> None:
    with pytest.raises(NoWorkersError, match="the cluster has no GPU"):
        count_workers({"CPU": 8.0}, replace(CONFIG, workers=WorkerConfig()), 1, 5)
