from jobs.config import RetryPolicy
from jobs.errors import FailureClass
from jobs.retry import GiveUp, Retry, Stop, decide
from jobs.types import ClipFailed


def failure(attempt: int, failure_class: FailureClass, *, may_pass: bool) -> ClipFailed:
    return ClipFailed("0" * 32, "clip", attempt, failure_class, may_pass, "SomeError", "message", "", "host:1")


def test_a_failure_that_may_pass_is_tried_again_until_the_attempts_are_used_up() -> None:
    policy = RetryPolicy(max_attempts=3)
    decisions = [decide(failure(attempt, "worker", may_pass=True), policy) for attempt in (1, 2, 3)]
    assert decisions[:2] == [Retry(2), Retry(3)]
    assert decisions[2] == GiveUp("failed in 3 of 3 attempts")


def test_a_failure_that_does_not_pass_is_given_up_at_once() -> None:
    assert decide(failure(1, "code", may_pass=False), RetryPolicy()) == GiveUp("SomeError does not pass on a retry")


def test_no_clip_is_given_up_for_the_stores_sake() -> None:
    policy = RetryPolicy(max_attempts=2)
    assert decide(failure(1, "store", may_pass=False), policy) == Stop("message")
    assert decide(failure(1, "store", may_pass=True), policy) == Retry(2)
    assert decide(failure(2, "store", may_pass=True), policy) == Stop("message")
