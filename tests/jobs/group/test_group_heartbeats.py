"""The heartbeat of a group, with fake ranks: how it is merged, and when it reports a lost rank."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.group.generations import GroupDeadlines
from jobs.group.rank_group import RankGroup
from jobs.group.rank_state import Detached
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipProgress, LostRank, WorkerHeartbeat
from pipelines.errors import GroupBrokenError, RankLostError, RankPreemptedError, RankSilentError
from pipelines.load_progress import NOT_LOADING, LoadPosition
from tests.fakes.rank_processes import (
    CLIP,
    DONE,
    PAIR,
    UNUSABLE,
    FakeLauncher,
    FakeRank,
    Late,
    failed_by,
    formed,
)

DENOISING = WorkerHeartbeat((ClipProgress(CLIP.clip_id, "denoise", 1, 0.1),), 100)
IDLE = WorkerHeartbeat((), 100)
DRAINING = WorkerHeartbeat((), 1, is_draining=True)


def test_a_group_reports_its_leaders_clips_and_its_largest_ranks_memory() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(heartbeat=DENOISING)
    assert group.heartbeat() == WorkerHeartbeat(DENOISING.clips, 101)


def test_a_group_drains_when_any_rank_does() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.follower.answer(heartbeat=DRAINING)
    heartbeat = group.heartbeat()
    assert isinstance(heartbeat, WorkerHeartbeat)
    assert heartbeat.is_draining


def test_a_group_that_forms_again_without_its_draining_rank_drains_no_more() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.follower.answer(heartbeat=DRAINING)
    group.heartbeat()
    ranks.follower.answer(state=UNUSABLE)
    group.rebuild()
    assert group.heartbeat() == WorkerHeartbeat((), 101)


def test_a_group_whose_own_process_got_sigterm_drains_also_after_it_forms_again() -> None:
    group = formed(FakeLauncher())
    group.drain()
    group.rebuild()
    assert group.heartbeat() == WorkerHeartbeat((), 101, is_draining=True)


def test_a_late_heartbeat_of_a_replaced_rank_does_not_drain_the_group() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)

    def replaced_meanwhile() -> RankLostError:
        for rank in ranks.started:
            rank.answer(state=UNUSABLE)
        group.rebuild()
        return RankLostError("killed")

    ranks.leader.answer(heartbeat=DRAINING)
    ranks.follower.answer(heartbeat=replaced_meanwhile)
    assert group.heartbeat() == WorkerHeartbeat((), 0)
    assert group.heartbeat() == WorkerHeartbeat((), 101)


def test_a_group_that_forms_asks_no_rank_for_a_heartbeat() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    heartbeats: list[WorkerHeartbeat | LostRank] = []
    ranks.leader.answer(lead=lambda: heartbeats.append(group.heartbeat()))
    group.rebuild()
    assert heartbeats == [WorkerHeartbeat((), 0)]
    assert "heartbeat" not in ranks.leader.asked


def test_a_clip_that_uploads_while_its_group_forms_again_for_another_is_still_reported() -> None:
    """If the group is lost by then, the loss must not be attributed to that clip."""
    uploading = WorkerHeartbeat((ClipProgress("other", "upload", None, 0.1), *DENOISING.clips), 100)
    ranks = FakeLauncher()
    group = formed(ranks)
    heartbeats: list[WorkerHeartbeat | LostRank] = []
    ranks.leader.answer(
        heartbeat=uploading,
        render=[failed_by(GroupBrokenError), DONE],
        state=Detached("code"),
        lead=lambda: heartbeats.append(group.heartbeat()),
    )
    group.heartbeat()
    group.render(CLIP, 1, False)
    group.rebuild()
    assert heartbeats == [WorkerHeartbeat(uploading.clips[:1], 0), WorkerHeartbeat((), 0)]


def test_a_rank_that_is_missing_since_it_is_being_replaced_is_not_reported_lost() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)

    def replaced_meanwhile() -> RankLostError:
        ranks.follower.answer(state=UNUSABLE)
        group.rebuild()
        return RankLostError("killed")

    ranks.follower.answer(heartbeat=replaced_meanwhile)
    assert group.heartbeat() == WorkerHeartbeat((), 0)


@pytest.mark.parametrize(("leader", "is_reported"), [(IDLE, True), (DENOISING, False)])
def test_a_heartbeat_reports_a_dead_rank_unless_the_leader_is_about_to_fail_its_clip(
    leader: WorkerHeartbeat, is_reported: bool
) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(heartbeat=leader)
    ranks.follower.answer(heartbeat=RankLostError("gone"))
    assert isinstance(group.heartbeat(), LostRank) == is_reported


def test_a_heartbeat_reports_a_dead_rank_when_the_leader_does_not_fail_its_clip_in_time() -> None:
    ranks = FakeLauncher()
    group = formed(ranks, leave_s=0.0)
    ranks.leader.answer(heartbeat=DENOISING)
    ranks.follower.answer(heartbeat=RankLostError("gone"))
    assert isinstance(group.heartbeat(), WorkerHeartbeat)
    assert group.heartbeat() == LostRank("gone")


def test_a_heartbeat_reports_a_stalled_rank_also_while_the_leader_denoises() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(heartbeat=DENOISING)
    ranks.follower.answer(heartbeat=RankSilentError("silent"))
    assert group.heartbeat() == LostRank("silent")


def test_a_heartbeat_reports_a_preempted_rank_before_a_stalled_one() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(heartbeat=RankSilentError("silent"))
    ranks.follower.answer(heartbeat=RankPreemptedError("taken away"))
    assert group.heartbeat() == LostRank("taken away", is_preempted=True)


def test_a_group_that_loads_shows_how_far_its_leader_is() -> None:
    position, identity, are_asked = LoadPosition(("read",), 1.0), Late(), threading.Event()

    def prepare(rank: FakeRank) -> None:
        if rank.index == 0:
            heartbeats = [
                RankSilentError("its process starts"),
                WorkerHeartbeat((), 1, load=position),
            ]
            rank.answer(load=identity, heartbeat=heartbeats)
        else:
            are_asked.set()

    group = RankGroup(
        PAIR, FakeLauncher(prepare), GroupDeadlines(30.0, 0.05, 1.0, 0.05, 0.05, 30.0)
    )
    assert loading_of(group) == NOT_LOADING  # no rank was started yet
    with ThreadPoolExecutor(1) as thread:
        loaded = thread.submit(group.load)
        assert are_asked.wait(30)
        found = [loading_of(group)]
        while len(found) < 2 or found[-1] == NOT_LOADING:
            found.append(loading_of(group))
        identity.future.set_result(WorkerIdentity("host", "node-0", "fake", 0))
        loaded.result()
    assert set(found) == {NOT_LOADING, position}


def loading_of(group: RankGroup) -> LoadPosition:
    heartbeat = group.heartbeat()
    assert isinstance(heartbeat, WorkerHeartbeat)
    return heartbeat.load
