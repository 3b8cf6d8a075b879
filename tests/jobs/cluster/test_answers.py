"""The answers of Ray's calls: their order, their errors and the wait, with futures as Ray has."""

from concurrent.futures import Future
from typing import Any

from ray.exceptions import RayActorError

from jobs.cluster.answers import Answers


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
