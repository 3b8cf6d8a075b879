"""What a group decides when its ranks answer, or do not, with ranks made by hand."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Timer
from typing import Any

import pytest

from jobs.group.rank_group import GroupDeadlines, RankGroup
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipDone, ClipFailed, ClipOutcome, ClipProgress, LostRank, WorkerHeartbeat
from pipelines.errors import (
    GroupBrokenError,
    GroupError,
    ModelFolderError,
    RankLostError,
    RankPreemptedError,
    RankSilentError,
)
from pipelines.parallel_config import ParallelConfig
from tests.builders.specs import spec

PAIR = ParallelConfig(ulysses=2)
CLIP = spec("sunrise")
DONE = ClipDone(CLIP.clip_id, CLIP.name, "file:///clip", 1, ())
DENOISING = WorkerHeartbeat((ClipProgress(CLIP.clip_id, "denoise", 1, 0.1),), 100)
IDLE = WorkerHeartbeat((), 100)


@dataclass
class Given:
    """An answer that is there already, or what makes it when it is waited for."""

    value: Any
    made: Future[Any] | None = None

    @property
    def future(self) -> Future[Any]:
        if self.made is None:
            self.made = Future()
            value = self.value() if callable(self.value) else self.value
            if isinstance(value, Exception):
                self.made.set_exception(value)
            else:
                self.made.set_result(value)
        return self.made

    def get(self, wait_s: float | None) -> Any:
        return self.future.result(0)


class Awaited:
    """An answer that does not come."""

    future: Future[Any] = Future()

    def get(self, wait_s: float | None) -> Any:
        raise AssertionError("it would be waited for in vain")


class Late:
    """An answer that somebody else gives."""

    def __init__(self) -> None:
        self.future: Future[Any] = Future()

    def get(self, wait_s: float | None) -> Any:
        return self.future.result(wait_s)


@dataclass
class FakeRank:
    """A rank that answers as it is told to; methods that nobody speaks of succeed."""

    index: int
    number: int
    answers: dict[str, Any] = field(default_factory=dict[str, Any])
    asked: list[str] = field(default_factory=list[str])
    meetings: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    is_killed: bool = False

    def ask(self, method: str, *arguments: Any) -> Given | Awaited | Late:
        self.asked.append(method)
        self.meetings += arguments[:1] if method in ("lead", "join") else ()
        if self.is_killed:
            return Given(RankLostError("killed"))
        defaults: dict[str, Any] = {
            "load": WorkerIdentity("host", f"node-{self.index}", "fake", self.number),
            "is_sound": True,
            "spooled": frozenset({"spooled"}),
            "heartbeat": WorkerHeartbeat((), 100 + self.index),
            "render": DONE,
        }
        answer = self.answers.get(method, defaults.get(method))
        if isinstance(answer, list):
            return Given(answer.pop(0))
        if isinstance(answer, Awaited | Late):
            return answer
        return Given(answer)

    def name_for_leader(self) -> int:
        return self.number

    def kill(self) -> None:
        self.is_killed = True


class FakePoint:
    def rendezvous(self, generation: int, rank: int, *_: Any) -> tuple[int, int]:
        return generation, rank


class Ranks:
    """Starts ranks, and remembers them in order; `prepare` is done to each."""

    def __init__(self, prepare: Callable[[FakeRank], None] = lambda _: None) -> None:
        self.started: list[FakeRank] = []
        self.prepare = prepare

    def start(self, index: int) -> FakeRank:
        rank = FakeRank(index, len(self.started))
        self.prepare(rank)
        self.started.append(rank)
        return rank

    @property
    def alive(self) -> list[int]:
        return sorted(rank.number for rank in self.started if not rank.is_killed)


def formed(ranks: Ranks, leave_s: float = 0.05, join_s: float = 0.05) -> RankGroup:
    point: Any = FakePoint()
    group = RankGroup(
        PAIR, ranks.start, lambda: point, GroupDeadlines(1.0, 0.05, 1.0, 0.05, leave_s, join_s)
    )
    group.load()
    return group


def failed(error: type[GroupError]) -> ClipFailed:
    """Return a failure that the ranks of a group caused."""
    return ClipFailed(
        clip_id=CLIP.clip_id,
        name=CLIP.name,
        attempt=1,
        failure_class="worker",
        may_pass_on_retry=True,
        error_type=error.__name__,
        message="why",
        traceback="",
        worker="host:1",
        group_error=error,
    )


def test_a_group_is_its_leader_and_says_who_else_is_in_it() -> None:
    loaded = formed(Ranks()).rebuild()
    assert loaded.label == "host:0 (group of 2: ulysses 2; pids 0, 1)"
    assert loaded.nodes == {"node-0", "node-1"}
    assert loaded.spooled == {"spooled"}


def test_why_a_rank_cannot_load_is_why_the_group_cannot() -> None:
    ranks = Ranks(
        lambda rank: rank.answers.update(load=ModelFolderError("broken")) if rank.index else None
    )
    with pytest.raises(ModelFolderError, match="broken"):
        formed(ranks)


def test_ranks_that_are_sound_are_kept_with_their_weights() -> None:
    ranks = Ranks()
    formed(ranks).rebuild()
    assert ranks.alive == [0, 1]
    assert [rank.asked.count("load") for rank in ranks.started] == [1, 1]
    assert [rank.asked.count("leave") for rank in ranks.started] == [1, 1]


@pytest.mark.parametrize("answer", [False, RankSilentError("silent"), RankLostError("gone")])
def test_a_rank_that_is_not_sound_or_does_not_say_so_is_started_anew(
    answer: bool | GroupError,
) -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[1].answers["is_sound"] = answer
    group.rebuild()
    assert ranks.alive == [0, 2]


@pytest.mark.parametrize("method", ["leave", "finish"])
def test_a_rank_that_does_not_come_out_of_the_broken_group_is_started_anew(method: str) -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers[method] = RankSilentError("still at it")
    group.rebuild()
    assert ranks.alive == [1, 2]


@pytest.mark.parametrize("method", ["is_sound", "leave", "finish"])
def test_a_rank_that_fails_in_any_other_way_while_it_is_to_leave_is_started_anew_and_ends_no_run(
    method: str,
) -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers[method] = RuntimeError("NCCL error: unhandled system error")
    group.rebuild()
    assert ranks.alive == [1, 2]


def test_no_generation_meets_where_an_earlier_one_did() -> None:
    ranks = Ranks()
    formed(ranks).rebuild()
    assert [rank.meetings for rank in ranks.started] == [[(1, 0), (2, 0)], [(1, 1), (2, 1)]]


def test_a_group_that_does_not_form_is_told_so() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[1].answers["join"] = RankSilentError("nobody came")
    with pytest.raises(RankSilentError, match="nobody came"):
        group.rebuild()


def test_the_others_are_not_waited_for_when_a_rank_dies_while_they_wait_for_it() -> None:
    ranks = Ranks()
    group = formed(ranks, join_s=600)  # which the test's own time-out is shorter than
    ranks.started[0].answers["lead"] = Awaited()
    ranks.started[1].answers["join"] = RankLostError("gone")
    with pytest.raises(RankLostError, match="gone"):
        group.rebuild()


def test_how_many_ranks_did_not_come_is_said() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["lead"] = Awaited()
    with pytest.raises(RankSilentError, match=r"1 of 2 ranks gave no answer within 0\.05 s"):
        group.rebuild()


@pytest.mark.parametrize("cause", [MemoryError("full"), RankPreemptedError("taken away")])
def test_why_a_group_does_not_form_is_told_also_when_another_rank_that_follows_from_it_answers_first(
    cause: Exception,
) -> None:
    ranks = Ranks()
    group = formed(ranks)
    late = Late()
    Timer(0.05, late.future.set_exception, [cause]).start()
    ranks.started[0].answers["lead"] = RankLostError("no connection")
    ranks.started[1].answers["join"] = late
    with pytest.raises(type(cause), match=str(cause)):
        group.rebuild()


@pytest.mark.parametrize("gone", [RankLostError("gone"), RankPreemptedError("taken away")])
def test_a_group_that_does_not_form_says_who_is_gone_and_not_who_waits_for_it(
    gone: GroupError,
) -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["lead"] = RankSilentError("waits")
    ranks.started[1].answers["join"] = gone
    with pytest.raises(type(gone), match=str(gone)):
        group.rebuild()


def test_a_clip_whose_group_does_not_form_since_a_rank_is_preempted_is_not_charged_with_it() -> (
    None
):
    ranks = Ranks()
    group = formed(ranks)
    answers = {
        "render": failed(GroupBrokenError),
        "broken_by": "code",
        "lead": RankLostError("no connection"),
    }
    ranks.started[0].answers |= answers
    ranks.started[1].answers["join"] = RankPreemptedError("taken away")
    assert group.render(CLIP, 1, False) == LostRank("taken away", is_preempted=True)


def test_a_group_says_what_its_leader_is_at_and_how_much_its_largest_rank_holds() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["heartbeat"] = DENOISING
    assert group.heartbeat() == WorkerHeartbeat(DENOISING.clips, 101)


def test_a_group_drains_when_any_rank_does() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[1].answers["heartbeat"] = WorkerHeartbeat((), 1, is_draining=True)
    heartbeat = group.heartbeat()
    assert isinstance(heartbeat, WorkerHeartbeat)
    assert heartbeat.is_draining


def test_a_group_that_is_formed_anew_drains_no_more_when_the_rank_that_did_is_gone() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[1].answers["heartbeat"] = WorkerHeartbeat((), 1, is_draining=True)
    group.heartbeat()
    ranks.started[1].answers["is_sound"] = False
    group.rebuild()
    assert group.heartbeat() == WorkerHeartbeat((), 101)


def test_a_group_whose_own_process_was_told_to_end_drains_also_when_it_is_formed_anew() -> None:
    group = formed(Ranks())
    group.drain()
    group.rebuild()
    assert group.heartbeat() == WorkerHeartbeat((), 101, is_draining=True)


def test_a_late_word_of_a_rank_that_has_been_replaced_drains_no_group() -> None:
    ranks = Ranks()
    group = formed(ranks)

    def replaced_meanwhile() -> RankLostError:
        for rank in ranks.started:
            rank.answers["is_sound"] = False
        group.rebuild()
        return RankLostError("killed")

    ranks.started[0].answers["heartbeat"] = WorkerHeartbeat((), 1, is_draining=True)
    ranks.started[1].answers["heartbeat"] = replaced_meanwhile
    assert group.heartbeat() == WorkerHeartbeat((), 0)
    assert group.heartbeat() == WorkerHeartbeat((), 101)


def test_a_group_that_is_being_formed_asks_no_rank_for_its_beat() -> None:
    ranks = Ranks()
    group = formed(ranks)
    heartbeats: list[WorkerHeartbeat | LostRank] = []
    ranks.started[0].answers["lead"] = lambda: heartbeats.append(group.heartbeat())
    group.rebuild()
    assert heartbeats == [WorkerHeartbeat((), 0)]
    assert "heartbeat" not in ranks.started[0].asked


def test_a_clip_that_is_uploaded_while_its_group_is_formed_anew_for_another_is_still_told_of_as_such() -> (
    None
):
    """If the group is lost by then, the clip is not to blame."""
    uploading = WorkerHeartbeat((ClipProgress("other", "upload", None, 0.1), *DENOISING.clips), 100)
    ranks = Ranks()
    group = formed(ranks)
    heartbeats: list[WorkerHeartbeat | LostRank] = []
    ranks.started[0].answers |= {
        "heartbeat": uploading,
        "render": [failed(GroupBrokenError), DONE],
        "broken_by": "code",
        "lead": lambda: heartbeats.append(group.heartbeat()),
    }
    group.heartbeat()
    group.render(CLIP, 1, False)
    group.rebuild()
    assert heartbeats == [WorkerHeartbeat(uploading.clips[:1], 0), WorkerHeartbeat((), 0)]


def test_a_rank_that_is_missing_since_it_is_being_replaced_is_not_told_of() -> None:
    ranks = Ranks()
    group = formed(ranks)

    def replaced_meanwhile() -> RankLostError:
        ranks.started[1].answers["is_sound"] = False
        group.rebuild()
        return RankLostError("killed")

    ranks.started[1].answers["heartbeat"] = replaced_meanwhile
    assert group.heartbeat() == WorkerHeartbeat((), 0)


@pytest.mark.parametrize(("leader", "is_told"), [(IDLE, True), (DENOISING, False)])
def test_a_rank_that_dies_is_told_of_by_the_beats_unless_the_leader_is_about_to(
    leader: WorkerHeartbeat, is_told: bool
) -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["heartbeat"] = leader
    ranks.started[1].answers["heartbeat"] = RankLostError("gone")
    assert isinstance(group.heartbeat(), LostRank) == is_told


def test_a_rank_that_dies_is_told_of_by_the_beats_when_the_leader_never_does() -> None:
    ranks = Ranks()
    group = formed(ranks, leave_s=0.0)
    ranks.started[0].answers["heartbeat"] = DENOISING
    ranks.started[1].answers["heartbeat"] = RankLostError("gone")
    assert isinstance(group.heartbeat(), WorkerHeartbeat)
    assert group.heartbeat() == LostRank("gone")


def test_a_silent_rank_is_told_of_whatever_the_leader_is_at() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["heartbeat"] = DENOISING
    ranks.started[1].answers["heartbeat"] = RankSilentError("silent")
    assert group.heartbeat() == LostRank("silent")


def test_of_a_silent_rank_and_one_that_is_preempted_the_latter_is_told_of() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["heartbeat"] = RankSilentError("silent")
    ranks.started[1].answers["heartbeat"] = RankPreemptedError("taken away")
    assert group.heartbeat() == LostRank("taken away", is_preempted=True)


@pytest.mark.parametrize(
    ("error", "is_preempted"), [(RankLostError("gone"), False), (RankPreemptedError("x"), True)]
)
def test_a_leader_that_is_gone_is_told_of_in_the_place_of_its_clip(
    error: GroupError, is_preempted: bool
) -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["render"] = error
    assert group.render(CLIP, 1, False) == LostRank(str(error), is_preempted)


def test_a_clip_that_lost_a_rank_to_a_preemption_is_not_charged_with_it() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["render"] = failed(RankPreemptedError)
    assert group.render(CLIP, 1, False) == LostRank("why", is_preempted=True)


def test_a_clip_that_lost_a_rank_that_was_told_to_end_is_not_charged_with_it() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers["render"] = failed(RankLostError)
    assert group.render(CLIP, 1, False) == failed(RankLostError)
    ranks.started[1].answers["heartbeat"] = WorkerHeartbeat((), 1, is_draining=True)
    group.heartbeat()
    assert group.render(CLIP, 1, False) == LostRank("why", is_preempted=True)


def test_a_group_that_an_unknown_error_broke_is_formed_anew_for_its_next_clip() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers |= {"render": [failed(GroupBrokenError), DONE], "broken_by": "code"}
    assert group.render(CLIP, 1, False) == DONE
    assert [rank.asked.count("leave") for rank in ranks.started] == [1, 1]
    assert "finish" not in ranks.started[0].asked  # what it uploads is still this group's


def test_a_clip_whose_group_another_one_breaks_again_is_not_charged_with_it() -> None:
    ranks = Ranks()
    group = formed(ranks)
    broken = failed(GroupBrokenError)
    ranks.started[0].answers |= {"render": [broken, broken, DONE], "broken_by": "code"}
    assert group.render(CLIP, 1, False) == DONE


def test_a_group_that_cannot_be_formed_anew_for_its_next_clip_is_lost_and_says_why() -> None:
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers |= {"render": failed(GroupBrokenError), "broken_by": "code"}
    ranks.started[1].answers["join"] = RankSilentError("nobody came")
    assert group.render(CLIP, 1, False) == LostRank("nobody came")


def test_a_group_whose_new_rank_cannot_load_for_the_next_clip_is_lost_and_no_clip_to_blame_for_why() -> (
    None
):
    ranks = Ranks()
    group = formed(ranks)
    ranks.started[0].answers |= {"render": failed(GroupBrokenError), "broken_by": "code"}
    ranks.started[1].answers["is_sound"] = False
    ranks.prepare = lambda rank: rank.answers.update(load=MemoryError("no room"))
    assert group.render(CLIP, 1, False) == LostRank("the group could not be formed anew: no room")


def test_a_rank_that_was_replaced_is_told_of_though_another_could_not_be_then() -> None:
    ranks = Ranks()
    group = formed(ranks)
    for rank in ranks.started:
        rank.answers["is_sound"] = False
    ranks.prepare = lambda rank: (
        rank.answers.update(load=RankLostError("gone")) if rank.index else None
    )
    with pytest.raises(RankLostError):
        group.rebuild()
    ranks.started[3].answers["is_sound"] = False
    ranks.prepare = lambda _: None
    assert group.rebuild().label == "host:2 (group of 2: ulysses 2; pids 2, 4)"


@pytest.mark.parametrize("broken_by", ["memory", "worker"])
def test_a_group_that_the_schedule_lets_go_begins_no_further_clip(broken_by: str) -> None:
    ranks = Ranks()
    group = formed(ranks)
    outcomes: list[ClipOutcome] = [failed(GroupBrokenError), DONE]
    ranks.started[0].answers |= {"render": outcomes, "broken_by": broken_by}
    assert group.render(CLIP, 1, False) == failed(GroupBrokenError)
    assert outcomes == [DONE]
    assert not [rank for rank in ranks.started if "leave" in rank.asked]


def test_a_clip_that_was_waiting_when_its_group_was_formed_anew_is_not_rendered_by_the_next_one() -> (
    None
):
    ranks = Ranks()
    group = formed(ranks)

    def broken_meanwhile() -> ClipOutcome:
        group.rebuild()
        return failed(GroupBrokenError)

    ranks.started[0].answers["render"] = broken_meanwhile
    assert group.render(CLIP, 1, False) == failed(GroupBrokenError)
    assert ranks.started[0].asked.count("render") == 1


def test_a_leader_that_is_being_loaded_is_asked_for_no_clip() -> None:
    """Of a group that forms itself anew, to which the schedule goes on giving clips."""
    others: list[Future[ClipOutcome | LostRank]] = []
    early: list[str] = []
    with ThreadPoolExecutor(1) as threads:

        def load() -> WorkerIdentity:
            others.append(threads.submit(group.render, spec("sunset"), 1, False))
            wait(others, 0.2)
            early.extend(method for method in ranks.started[2].asked if method == "render")
            return WorkerIdentity("host", "node-0", "fake", 2)

        ranks = Ranks(lambda rank: rank.answers.update(load=load) if rank.number == 2 else None)
        group = formed(ranks)
        answers = {
            "render": failed(GroupBrokenError),
            "broken_by": "code",
            "leave": RankSilentError("still at it"),
        }
        ranks.started[0].answers |= answers
        assert group.render(CLIP, 1, False) == DONE
    assert others[0].result() == DONE
    assert not early


def test_a_clip_that_waits_for_its_group_to_form_is_not_rendered_once_the_schedule_has_let_the_group_go() -> (
    None
):
    ranks = Ranks()
    group = formed(ranks)
    with ThreadPoolExecutor(1) as threads:

        def lost_meanwhile() -> None:
            if not group._session:
                threads.submit(group.rebuild)
                while not group._session:
                    time.sleep(0.001)

        ranks.started[0].answers |= {
            "render": [failed(GroupBrokenError), DONE],
            "broken_by": "code",
        }
        ranks.started[1].answers["join"] = lost_meanwhile
        assert isinstance(group.render(CLIP, 1, False), LostRank)
    assert ranks.started[0].asked.count("render") == 1
