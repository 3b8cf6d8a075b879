"""The answers of Ray's calls: their order, their errors and the wait, with futures as Ray has.

No Ray runs here.
"""

from concurrent.futures import Future
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from ray.exceptions import RayActorError

from jobs.cluster.answers import Answer, Answers
from jobs.cluster.worker_pool import PoolPlan, WorkerPool
from jobs.cluster.worker_states import RunningWorker
from jobs.plan.demand import Demand
from jobs.plan.group_capacity import RankResources
from jobs.schedule import events as ev
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share
from jobs.settings.run_config import RunConfig
from jobs.types import ClipDone
from pipelines.parallel_config import ONE_DEVICE
from tests.builders.specs import setup_for


class Reference:
    """A reference to the answer of a call, as Ray gives it."""

    def __init__(self) -> None:
        self.answered: Future[Any] = Future()

    def future(self) -> Future[Any]:
        return self.answered


def test_answers_come_in_the_order_in_which_they_were_given_and_errors_among_them() -> None:
    answers, calls = Answers(), [Reference() for _ in range(3)]
    for worker, call in enumerate(calls):
        answers.expect(0, worker, "clip", call)
    assert answers.wait(0) == []
    error = RayActorError()
    calls[2].answered.set_result("done")
    calls[0].answered.set_exception(error)
    found = answers.wait(0)
    assert [(one.worker, one.call, one.value, one.error) for one in found] == [
        (2, "clip", "done", None),
        (0, "clip", None, error),
    ]
    assert answers.wait(0) == [], "an answer comes once"


def test_an_answer_that_is_there_before_it_is_expected_comes_too() -> None:
    answers, call = Answers(), Reference()
    call.answered.set_result(None)
    answers.expect(0, 7, "placed", call)
    (found,) = answers.wait(60)
    assert (found.worker, found.call, found.error) == (7, "placed", None)


def test_a_clip_that_ended_before_its_worker_died_counts_whatever_is_heard_first(
    tmp_path: Path,
) -> None:
    demand = Demand(ONE_DEVICE, RankResources(1), 1)
    plan = PoolPlan(setup_for(tmp_path), lambda _: demand, iter(()))
    share, observer = Share(demand, Schedule(RunConfig(), 1)), Mock()
    pool = WorkerPool(0, plan, share, RunConfig(), observer, Answers())
    pool.workers[3] = RunningWorker(Mock(), "w")
    done = ClipDone("0" * 32, "a", 1, ())
    lost = pool.event_of(Answer(0, 3, "heartbeat", None, RayActorError()))
    ended = pool.event_of(Answer(0, 3, "clip", done, None))
    assert isinstance(lost, ev.WorkerLost)
    assert ended == ev.ClipEnded(3, done)
    observer.clip_done.assert_called_once_with(done)
    assert pool.event_of(Answer(0, 3, "clip", None, RayActorError())) is None, "it is lost once"
