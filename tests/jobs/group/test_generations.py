"""The generations of a group, with fake ranks: which are kept, and why a group does not form."""

from threading import Timer

import pytest

from jobs.group.rank_state import Unusable
from pipelines.errors import (
    GroupError,
    ModelFolderError,
    RankLostError,
    RankPreemptedError,
    RankSilentError,
)
from tests.fakes.rank_processes import UNUSABLE, Answers, Awaited, FakeLauncher, Late, formed

STUCK = RankSilentError("still busy")
NCCL_ERROR = RuntimeError("NCCL error: unhandled system error")


def test_a_group_is_labelled_by_its_leader_and_lists_its_ranks() -> None:
    loaded = formed(FakeLauncher()).rebuild()
    assert loaded.label == "host:0 (group of 2: ulysses 2; pids 0, 1)"
    assert loaded.nodes == {"node-0", "node-1"}
    assert loaded.spooled == {"spooled"}


def test_a_group_that_cannot_load_raises_the_error_of_its_rank() -> None:
    ranks = FakeLauncher(
        lambda rank: rank.answer(load=ModelFolderError("broken")) if rank.index else None
    )
    with pytest.raises(ModelFolderError, match="broken"):
        formed(ranks)


def test_usable_ranks_keep_their_processes_and_weights() -> None:
    ranks = FakeLauncher()
    formed(ranks).rebuild()
    assert ranks.alive == [0, 1]
    assert [rank.asked.count("load") for rank in ranks.started] == [1, 1]
    assert [rank.asked.count("leave") for rank in ranks.started] == [1, 1]


@pytest.mark.parametrize("answer", [UNUSABLE, RankSilentError("silent"), RankLostError("gone")])
def test_a_rank_that_is_unusable_or_does_not_answer_is_replaced(
    answer: Unusable | GroupError,
) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.follower.answer(state=answer)
    group.rebuild()
    assert ranks.alive == [0, 2]


@pytest.mark.parametrize("answers", [Answers(leave=STUCK), Answers(finish=STUCK)])
def test_a_rank_that_does_not_leave_the_broken_group_in_time_is_replaced(answers: Answers) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(**answers)
    group.rebuild()
    assert ranks.alive == [1, 2]


@pytest.mark.parametrize(
    "answers", [Answers(state=NCCL_ERROR), Answers(leave=NCCL_ERROR), Answers(finish=NCCL_ERROR)]
)
def test_a_rank_that_raises_any_other_error_while_it_leaves_is_replaced_and_ends_no_run(
    answers: Answers,
) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(**answers)
    group.rebuild()
    assert ranks.alive == [1, 2]


def test_each_generation_has_a_rendezvous_of_its_own() -> None:
    ranks = FakeLauncher()
    formed(ranks).rebuild()
    assert [rank.joined for rank in ranks.started] == [[(1, 0), (2, 0)], [(1, 1), (2, 1)]]


def test_a_group_that_does_not_form_raises_the_reason() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.follower.answer(join=RankSilentError("no rank joined"))
    with pytest.raises(RankSilentError, match="no rank joined"):
        group.rebuild()


def test_a_group_does_not_wait_for_the_others_when_a_rank_dies_while_they_wait_for_it() -> None:
    ranks = FakeLauncher()
    group = formed(ranks, join_s=600)  # longer than this test may take
    ranks.leader.answer(lead=Awaited())
    ranks.follower.answer(join=RankLostError("gone"))
    with pytest.raises(RankLostError, match="gone"):
        group.rebuild()


def test_the_error_counts_the_ranks_that_gave_no_answer() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(lead=Awaited())
    with pytest.raises(RankSilentError, match=r"1 of 2 ranks gave no answer within 0\.05 s"):
        group.rebuild()


@pytest.mark.parametrize("cause", [MemoryError("full"), RankPreemptedError("taken away")])
def test_the_cause_is_raised_even_if_a_rank_that_only_follows_from_it_answers_first(
    cause: Exception,
) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    late = Late()
    Timer(0.05, late.future.set_exception, [cause]).start()
    ranks.leader.answer(lead=RankLostError("no connection"))
    ranks.follower.answer(join=late)
    with pytest.raises(type(cause), match=str(cause)):
        group.rebuild()


@pytest.mark.parametrize("gone", [RankLostError("gone"), RankPreemptedError("taken away")])
def test_a_group_that_does_not_form_names_the_rank_that_is_gone_and_not_one_that_waits_for_it(
    gone: GroupError,
) -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    ranks.leader.answer(lead=RankSilentError("waits"))
    ranks.follower.answer(join=gone)
    with pytest.raises(type(gone), match=str(gone)):
        group.rebuild()


def test_a_replaced_rank_is_in_the_label_even_if_another_could_not_be_replaced_then() -> None:
    ranks = FakeLauncher()
    group = formed(ranks)
    for rank in ranks.started:
        rank.answer(state=UNUSABLE)
    ranks.prepare = lambda rank: rank.answer(load=RankLostError("gone")) if rank.index else None
    with pytest.raises(RankLostError):
        group.rebuild()
    ranks.started[3].answer(state=UNUSABLE)
    ranks.prepare = lambda _: None
    assert group.rebuild().label == "host:2 (group of 2: ulysses 2; pids 2, 4)"
