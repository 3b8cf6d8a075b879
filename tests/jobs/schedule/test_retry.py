import pytest

from jobs.errors import FailureClass
from jobs.schedule.retry import Quarantine, Retry, Stop, Wait, decide
from jobs.settings.run_config import RetryPolicy
from jobs.types import ClipFailed

POLICY = RetryPolicy()


def failure(
    attempt: int, failure_class: FailureClass, *, may_pass: bool = True, worker: str | None = None
) -> ClipFailed:
    label = worker or f"host:{attempt}"
    return ClipFailed(
        clip_id="0" * 32,
        name="clip",
        attempt=attempt,
        failure_class=failure_class,
        may_pass_on_retry=may_pass,
        error_type="SomeError",
        message="message",
        traceback="",
        worker=label,
    )


@pytest.mark.parametrize(
    ("failure_class", "budget"), [("worker", 3), ("stall", 2), ("memory", 2), ("clip", 2)]
)
def test_a_failure_that_may_pass_is_tried_again_within_the_budget_of_its_class(
    failure_class: FailureClass, budget: int
) -> None:
    failures = [
        failure(attempt, failure_class, worker="host:1") for attempt in range(1, budget + 1)
    ]
    for attempt in range(1, budget):
        assert decide(failures[:attempt], POLICY) == Retry(
            attempt + 1, uses_exact_attention=failure_class == "clip"
        )
    reason = f"failures of the class {failure_class}: {budget}, the limit is {budget}"
    assert decide(failures, POLICY) == Quarantine(reason)


def test_a_clip_is_quarantined_after_failures_of_any_class_on_three_different_workers() -> None:
    mixed = [failure(1, "memory"), failure(2, "stall"), failure(3, "worker")]
    assert decide(mixed[:2], POLICY) == Retry(3)
    assert decide(mixed, POLICY) == Quarantine("failed on 3 different workers, the limit is 3")


def test_a_clip_that_failed_its_frame_checks_is_retried_with_exact_attention_from_then_on() -> None:
    assert decide([failure(1, "clip")], POLICY) == Retry(2, uses_exact_attention=True)
    assert decide(
        [failure(1, "clip", worker="a"), failure(2, "worker", worker="b")], POLICY
    ) == Retry(3, uses_exact_attention=True)


def test_a_failure_that_does_not_pass_on_a_retry_quarantines_the_clip_at_once() -> None:
    assert decide([failure(1, "code", may_pass=False)], POLICY) == Quarantine(
        "SomeError would fail again on a retry"
    )


def test_no_clip_is_quarantined_because_the_store_refused_it() -> None:
    charged = [failure(1, "worker"), failure(2, "stall")]
    assert decide([*charged, failure(9, "store")], POLICY) == Wait(10)
    assert decide([*charged, failure(9, "store", may_pass=False)], POLICY) == Stop("message")
