"""How the ranks of a group are asked, all at once, and how long their answers are waited for. Knows nothing of Ray.

Decides nothing about what is asked; `rank_actors` says how a question travels.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from typing import Any, Protocol, TypeVar

from pipelines.errors import GroupError, RankLostError, RankPreemptedError, RankSilentError

E = TypeVar("E", bound=Exception)
CAUSE_WAIT_S = 1.0  # for the cause, where a rank that sees it from the other end of a connection has answered earlier


class Answer(Protocol):
    """What a rank will answer."""

    @property
    def future(self) -> Future[Any]:
        """Done once there is an answer, or can be none."""
        ...

    def get(self, wait_s: float | None) -> Any:
        """Waits for it; None for as long as the rank's process lives.

        Raises:
            RankSilentError: there is none in time.
            RankLostError: the process is gone; RankPreemptedError: since its machine was taken away.
            Exception: what the rank raised.
        """
        ...


class RankProcess(Protocol):
    """A process with one rank in it."""

    def ask(self, method: str, *arguments: Any) -> Answer:
        """Has the rank do something, and does not wait for it."""
        ...

    def name_for_leader(self) -> Any:
        """What the leader reaches this rank by."""
        ...

    def kill(self) -> None: ...


def collect(
    answers: Sequence[Answer], wait_s: float, failing: type[E]
) -> tuple[dict[int, Any], dict[int, E]]:
    """Waits for all, in `wait_s` together: the answers, and why there is none, by their places.

    Args:
        failing: what is said in the place of one answer; anything else is raised.
    """
    until = time.monotonic() + wait_s
    found: dict[int, Any] = {}
    failures: dict[int, E] = {}
    for place, answer in enumerate(answers):
        try:
            found[place] = answer.get(max(0.0, until - time.monotonic()))
        except failing as error:
            failures[place] = error
    return found, failures


def get_all(answers: Sequence[Answer], wait_s: float) -> list[Any]:
    """Waits for all, in `wait_s` together, or until one of them has failed: the others may wait for that rank.

    Raises:
        GroupError: why answers are missing.
        Exception: what a rank raised.
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
    return [found[place] for place in range(len(answers))]


def cause_among(failures: Mapping[int, GroupError]) -> GroupError:
    """Why answers are missing: a rank whose machine was taken away, before one that is gone, before all that only wait
    for these.
    """
    order = (RankPreemptedError, RankLostError)
    return min(failures.values(), key=lambda error: [not isinstance(error, kind) for kind in order])
