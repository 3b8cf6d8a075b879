"""Waiting for the answers of several ranks at once, within one deadline.

Decides when the wait ends and which of several failures is the cause. Knows nothing of Ray.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from typing import TypeVar

from jobs.group.rank_processes import Answer
from pipelines.errors import GroupError, RankLostError, RankPreemptedError, RankSilentError

T = TypeVar("T")
E = TypeVar("E", bound=Exception)
# A rank that only sees the other end of a broken connection may answer before the rank that broke.
CAUSE_WAIT_S = 1.0


def collect(
    answers: Sequence[Answer[T]], wait_s: float, failing: type[E]
) -> tuple[dict[int, T], dict[int, E]]:
    """Wait for all answers and return those that came, and the errors of the others.

    Args:
        answers: one for each question.
        wait_s: seconds for all of them together.
        failing: the class of errors that are returned; any other error is raised.

    Returns:
        The answers and the errors, each by its index in `answers`.
    """
    until = time.monotonic() + wait_s
    found: dict[int, T] = {}
    failures: dict[int, E] = {}
    for index, answer in enumerate(answers):
        try:
            found[index] = answer.get(max(0.0, until - time.monotonic()))
        except failing as error:
            failures[index] = error
    return found, failures


def get_all(answers: Sequence[Answer[T]], wait_s: float) -> list[T]:
    """Return all answers; stop waiting once one fails, since the other ranks may wait for that one.

    Args:
        answers: one for each question.
        wait_s: seconds for all of them together.

    Raises:
        GroupError: the cause, if answers are missing.
        Exception: a rank raised it.
    """
    futures = [answer.future for answer in answers]
    done, missing = wait(futures, wait_s, FIRST_EXCEPTION)
    if missing and any(future.exception() for future in done):
        done, missing = wait(futures, CAUSE_WAIT_S)
    ended = [answer for answer, future in zip(answers, futures, strict=True) if future in done]
    found, failures = collect(ended, 0.0, GroupError)
    if failures:
        raise cause_among(failures)
    if missing:
        raise RankSilentError(
            f"{len(missing)} of {len(answers)} ranks gave no answer within {wait_s:g} s"
        )
    return [found[index] for index in range(len(answers))]


def cause_among(failures: Mapping[int, GroupError]) -> GroupError:
    """Return the error from which the others follow.

    A preempted rank comes before one that is gone, and that before ranks that wait for these.
    """
    order = (RankPreemptedError, RankLostError)
    return min(failures.values(), key=lambda error: [not isinstance(error, kind) for kind in order])
