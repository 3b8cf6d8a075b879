"""Groups of ranks on a real Ray cluster, through the dispatcher, with a fake model that fails.

The prompt names the rank that fails. One run has all the faults, since a group takes seconds to
form; each test looks at one of them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import ray

from infra.local.ray_cluster import LocalRay
from jobs.errors import FailureClass
from jobs.records.commit import read_record
from jobs.records.schema import WorkerIdentity
from jobs.schedule.retry import Decision, Quarantine, Retry
from jobs.settings.run_config import RetryPolicy, RunConfig, StallPolicy, StoreConfig, WorkerConfig
from jobs.store.store import open_store
from jobs.types import ClipFailed, ClipSpec
from jobs.worker.setup import WorkerSetup
from pipelines.parallel_config import ParallelConfig
from tests.builders.specs import setup_for, spec
from tests.fakes.model import FakeLoader
from tests.fakes.ranks import FakeRankModel
from tests.jobs.cluster.test_dispatch import Notes, committed, dispatcher, is_alive

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),  # the fixture is a run that takes minutes on a busy machine
]

PAIR = ParallelConfig(ulysses=2)
CONFIG = RunConfig(
    workers=WorkerConfig(count=1, num_cpus=1, spool_clips=1),
    stall=StallPolicy(
        heartbeat_interval_s=0.5, heartbeat_timeout_s=6, first_s=60, factor=3, min_s=6
    ),
    retry=RetryPolicy(max_memory_failures=1),
)


def pair_for(folder: Path) -> WorkerSetup:
    return replace(setup_for(folder), loader=FakeLoader(FakeRankModel), parallel=PAIR)


@dataclass
class Diary(Notes):
    """An observer that also keeps each group's processes and the order of losses."""

    pids: list[list[int]] = field(default_factory=list[list[int]])
    lost_after: dict[tuple[str, FailureClass], int] = field(
        default_factory=dict[tuple[str, FailureClass], int]
    )

    def worker_ready(self, label: str, identity: WorkerIdentity, warning: str = "") -> None:
        super().worker_ready(label, identity)
        self.pids.append([int(pid) for pid in re.findall(r"\d+", label.partition("pids")[2])])

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        super().clip_failed(failed, decision)
        self.lost_after[failed.clip_id, failed.failure_class] = len(self.pids)


@dataclass
class FaultyRun:
    """The events of a run, and its clips by the name of their fault."""

    folder: Path
    notes: Diary
    clips: dict[str, ClipSpec]

    def failure(self, name: str, kind: FailureClass) -> tuple[ClipFailed, Decision]:
        """Return the only failure of a clip in a class.

        On a slow machine the last heartbeat before a loss may come too late; a clip that was there
        may then be charged with another clip's stall too.
        """
        (entry,) = [
            (failed, decision)
            for failed, decision in self.notes.failed
            if (failed.clip_id, failed.failure_class) == (self.clips[name].clip_id, kind)
        ]
        return entry

    def ranks(self, name: str, kind: FailureClass) -> tuple[list[int], list[int]]:
        """Return the pids of the group on which a clip failed, and of the next generation."""
        place = self.notes.lost_after[self.clips[name].clip_id, kind]
        return self.notes.pids[place - 1], self.notes.pids[place]

    def attempts(self, name: str) -> int:
        store = open_store(self.folder.as_uri(), StoreConfig())
        return read_record(store, self.clips[name].clip_id).attempt


def clips_for(folder: Path) -> dict[str, ClipSpec]:
    return {
        "well": spec("sunrise", 1),
        "follower killed": spec(f"rank 1 die once {folder / 'follower'}"),
        "leader killed": spec(f"rank 0 die once {folder / 'leader'}"),
        "wrong latents": spec(f"rank 1 differ once {folder / 'wrong'}"),
        "unknown error": spec("rank 1 error"),
        "follower stopped": spec(f"rank 1 stop once {folder / 'stopped'}"),
        "well at last": spec("sunrise", 2),
        # The last one, since no part of a group is kept after it.
        "out of memory": spec("rank 1 memory"),
    }


@pytest.fixture(scope="module")
def faulty_run(
    ray_cluster: LocalRay, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FaultyRun]:
    folder = tmp_path_factory.mktemp("group")
    clips = clips_for(folder)
    notes = Diary()
    ray.init(address=ray_cluster.address, log_to_driver=False, configure_logging=False)
    try:
        dispatcher(pair_for(folder), CONFIG, 1, notes).run(iter(clips.values()))
        yield FaultyRun(folder, notes, clips)
    finally:
        ray.shutdown()


def test_a_group_renders_clips_as_a_single_worker_does(faulty_run: FaultyRun) -> None:
    quarantined = {faulty_run.clips[name].clip_id for name in ("unknown error", "out of memory")}
    assert (
        committed(faulty_run.folder)
        == {clip.clip_id for clip in faulty_run.clips.values()} - quarantined
    )
    assert all("(group of 2: ulysses 2; pids " in label for label in faulty_run.notes.ready)


@pytest.mark.parametrize(("name", "dead"), [("follower killed", 1), ("leader killed", 0)])
def test_a_rank_that_is_killed_costs_the_clip_one_attempt_and_the_other_rank_lives_on(
    faulty_run: FaultyRun, name: str, dead: int
) -> None:
    failed, decision = faulty_run.failure(name, "worker")
    assert isinstance(decision, Retry)
    before, after = faulty_run.ranks(name, "worker")
    assert before[1 - dead] == after[1 - dead]
    assert before[dead] != after[dead]
    assert faulty_run.attempts(name) > failed.attempt


def test_a_stalled_rank_is_killed_and_the_leader_lives_on(
    faulty_run: FaultyRun,
) -> None:
    failed, decision = faulty_run.failure("follower stopped", "stall")
    assert isinstance(decision, Retry)
    assert failed.message.startswith("stalled: no heartbeat for")
    before, after = faulty_run.ranks("follower stopped", "stall")
    assert before[0] == after[0]
    assert before[1] != after[1]
    assert faulty_run.attempts("follower stopped") > failed.attempt


def test_latents_that_differ_among_ranks_make_no_clip_and_all_ranks_are_replaced(
    faulty_run: FaultyRun,
) -> None:
    failed, decision = faulty_run.failure("wrong latents", "worker")
    assert failed.error_type == "RanksDisagreeError"
    assert isinstance(decision, Retry)
    before, after = faulty_run.ranks("wrong latents", "worker")
    assert not set(before) & set(after)


def test_an_unknown_error_on_a_follower_is_reported_with_its_traceback(
    faulty_run: FaultyRun,
) -> None:
    failed, decision = faulty_run.failure("unknown error", "code")
    assert failed.error_type == "FakeError"
    assert isinstance(decision, Quarantine)
    assert "on rank 1: " in failed.traceback
    assert "tests/fakes/model.py" in failed.traceback


def test_an_out_of_memory_error_on_a_follower_is_the_groups_failure(faulty_run: FaultyRun) -> None:
    failed, _ = faulty_run.failure("out of memory", "memory")
    assert failed.error_type == "OutOfMemoryError"


def test_only_faults_lose_a_group_and_an_unknown_error_does_not(
    faulty_run: FaultyRun,
) -> None:
    assert len(faulty_run.notes.lost) == 5


def test_no_process_of_a_group_outlives_the_run(faulty_run: FaultyRun) -> None:
    assert not [pid for pids in faulty_run.notes.pids for pid in pids if is_alive(pid)]
