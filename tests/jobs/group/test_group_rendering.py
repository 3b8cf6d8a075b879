"""Clips on a group of fake ranks: their outcomes, and when the group forms again for the next."""

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from jobs.group.rank_state import Detached, Joined, RankState, Unusable
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipOutcome, LostRank, WorkerHeartbeat
from pipelines.errors import (
    GroupBrokenError,
    GroupError,
    RankLostError,
    RankPreemptedError,
    RankSilentError,
)
from tests.builders.specs import spec
from tests.fakes.rank_processes import CLIP, DONE, UNUSABLE, FakeLauncher, failed_by, formed

BROKEN = failed_by(GroupBrokenError)


@pytest.mark.parametrize(
    ("error", "is_preempted"), [(RankLostError("gone"), False), (RankPreemptedError("x"), True)]
)
def test_a_lost_leader_is_reported_as_the_answer_for_its_clip(
    error: GroupError, is_preempted: bool
) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=error)
    assert group.render(CLIP, 1, False) == LostRank(str(error), is_preempted)


def test_a_preempted_rank_is_not_attributed_to_the_clip() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=failed_by(RankPreemptedError))
    assert group.render(CLIP, 1, False) == LostRank("why", is_preempted=True)


def test_the_loss_of_a_draining_rank_is_not_attributed_to_the_clip() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=failed_by(RankLostError))
    assert group.render(CLIP, 1, False) == failed_by(RankLostError)
    ranks.follower.answer(heartbeat=WorkerHeartbeat((), 1, is_draining=True))
    group.heartbeat()
    assert group.render(CLIP, 1, False) == LostRank("why", is_preempted=True)


def test_a_preemption_while_the_group_forms_for_a_clip_is_not_attributed_to_the_clip() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=BROKEN, state=Detached("code"), lead=RankLostError("no connection"))
    ranks.follower.answer(join=RankPreemptedError("taken away"))
    assert group.render(CLIP, 1, False) == LostRank("taken away", is_preempted=True)


def test_a_group_that_an_unknown_error_broke_forms_again_for_its_next_clip() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=[BROKEN, DONE], state=Detached("code"))
    assert group.render(CLIP, 1, False) == DONE
    assert [rank.asked.count("leave") for rank in ranks.started] == [1, 1]
    assert "finish" not in ranks.leader.asked  # its uploads are still this group's


def test_a_clip_whose_group_another_clip_breaks_again_is_rendered_all_the_same() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=[BROKEN, BROKEN, DONE], state=Detached("code"))
    assert group.render(CLIP, 1, False) == DONE


def test_a_group_that_cannot_form_again_for_its_next_clip_is_lost_with_the_reason() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=BROKEN, state=Detached("code"))
    ranks.follower.answer(join=RankSilentError("no rank joined"))
    assert group.render(CLIP, 1, False) == LostRank("no rank joined")


def test_a_new_rank_that_cannot_load_for_the_next_clip_loses_the_group_and_not_the_clip() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=BROKEN, state=Detached("code"))
    ranks.follower.answer(state=UNUSABLE)
    ranks.prepare = lambda rank: rank.answer(load=MemoryError("no room"))
    assert group.render(CLIP, 1, False) == LostRank("the group could not form again: no room")


def test_a_group_that_an_unknown_error_broke_forms_again_also_if_its_leaders_device_failed() -> (
    None
):
    """The device failed outside of the denoise, with a clip whose failure is still on its way."""
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=BROKEN, state=Unusable("worker", Detached("code")))
    assert group.render(CLIP, 1, False) == DONE
    assert ranks.alive == [1, 2]


def test_a_clip_whose_group_formed_again_meanwhile_is_rendered_also_if_a_device_failed_since() -> (
    None
):
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(render=[BROKEN, DONE], state=Unusable("worker", Joined()))
    assert group.render(CLIP, 1, False) == DONE
    assert ranks.alive == [0, 1]


@pytest.mark.parametrize(
    "state", [Detached("memory"), Detached("worker"), Unusable("memory", Detached("memory"))]
)
def test_a_group_that_the_schedule_releases_begins_no_further_clip(state: RankState) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    outcomes: list[ClipOutcome] = [BROKEN, DONE]
    ranks.leader.answer(render=outcomes, state=state)
    assert group.render(CLIP, 1, False) == BROKEN
    assert outcomes == [DONE]
    assert not [rank for rank in ranks.started if "leave" in rank.asked]


def test_a_clip_that_waited_while_the_group_was_rebuilt_is_not_rendered_by_the_next_worker() -> (
    None
):
    ranks = FakeLauncher()
    group = formed(ranks)

    def broken_meanwhile() -> ClipOutcome:
        group.rebuild()
        return BROKEN

    ranks.leader.answer(render=broken_meanwhile)
    assert group.render(CLIP, 1, False) == BROKEN
    assert ranks.leader.asked.count("render") == 1


def test_a_leader_that_loads_gets_no_clip() -> None:
    """The schedule goes on giving clips to a group that forms again for one of them."""
    others: list[Future[ClipOutcome | LostRank]] = []
    early: list[str] = []
    with ThreadPoolExecutor(1) as threads:

        def load() -> WorkerIdentity:
            others.append(threads.submit(group.render, spec("sunset"), 1, False))
            wait(others, 0.2)
            early.extend(method for method in ranks.started[2].asked if method == "render")
            return WorkerIdentity("host", "node-0", "fake", 2)

        ranks = FakeLauncher(lambda rank: rank.answer(load=load) if rank.number == 2 else None)
        group = formed(ranks)
        ranks.leader.answer(
            render=BROKEN, state=Detached("code"), leave=RankSilentError("still busy")
        )
        assert group.render(CLIP, 1, False) == DONE
    assert others[0].result() == DONE
    assert not early


def test_a_clip_whose_group_is_released_while_it_forms_again_is_not_rendered() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    with ThreadPoolExecutor(1) as threads:

        def lost_meanwhile() -> None:
            if not group._session:
                threads.submit(group.rebuild)
                while not group._session:
                    time.sleep(0.001)

        ranks.leader.answer(render=[BROKEN, DONE], state=Detached("code"))
        ranks.follower.answer(join=lost_meanwhile)
        assert isinstance(group.render(CLIP, 1, False), LostRank)
    assert ranks.leader.asked.count("render") == 1


def test_a_recalled_clip_is_asked_back_from_the_leader_and_not_while_the_group_forms() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    group.recall(CLIP.clip_id)
    assert ranks.leader.asked[-1] == f"recall {CLIP.clip_id}"
    group._is_forming = True
    num_asked = len(ranks.leader.asked)
    group.recall(CLIP.clip_id)
    assert len(ranks.leader.asked) == num_asked
