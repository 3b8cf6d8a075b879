"""Ray's errors, translated to ours, on their way from an actor to its caller."""

import pytest
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from jobs.cluster.ray_errors import first_line, last_line, load_failure, rank_error
from jobs.errors import StoreRefusedError
from jobs.failures import classify
from pipelines.errors import RankLostError, RankPreemptedError


class DownloadError(Exception):
    """An error that can be pickled but not unpickled, since its constructor takes more arguments.

    Some libraries have such errors.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(f"{message}: {status}")


def arrived(error: Exception) -> RayError:
    """Return the error as it reaches another process."""
    raised = RayTaskError(
        "load", f"Traceback (most recent call last):\n{type(error).__name__}: {error}", error
    )
    there: RayError = RayError.from_bytes(raised.to_bytes())
    return there


def test_the_error_that_a_rank_raised_arrives_unchanged() -> None:
    cause = rank_error(arrived(MemoryError("full")))
    assert isinstance(cause, MemoryError)
    assert str(cause) == "full"


def test_a_dead_process_is_a_lost_rank() -> None:
    assert isinstance(rank_error(ActorDiedError(), "rank 1"), RankLostError)


def test_a_rank_that_could_not_be_started_gives_the_reason_and_is_not_retried() -> None:
    """A single worker whose machine lacks what the store's client needs fails in this way too."""
    refused = StoreRefusedError("the profile 'farm' is unknown")
    text = f"Traceback (most recent call last):\njobs.errors.StoreRefusedError: {refused}"
    cause = rank_error(ActorDiedError(RayTaskError("__init__", text, refused)))
    assert classify(cause) == ("code", False)
    assert str(cause) == f"a rank could not be started: jobs.errors.StoreRefusedError: {refused}"


@pytest.mark.parametrize("text", ["", " \n "])
def test_an_error_without_text_is_shown_by_its_class(text: str) -> None:
    assert (first_line(OSError(text)), last_line(OSError(text))) == ("OSError", "OSError")


def test_an_error_that_cannot_be_unpickled_is_not_mistaken_for_a_lost_rank() -> None:
    cause = rank_error(arrived(DownloadError("no such file", status=404)))
    assert classify(cause) == ("code", False)
    assert "DownloadError: no such file: 404" in str(cause)


@pytest.mark.parametrize(
    ("cause", "is_charged"), [(RankLostError("gone"), True), (RankPreemptedError("taken"), False)]
)
def test_a_group_that_loses_a_rank_to_a_preemption_while_it_loads_does_not_count_as_a_load_failure(
    cause: Exception, is_charged: bool
) -> None:
    failed = load_failure(1, "wan", RayTaskError("load", "", cause))
    assert (failed.is_charged, failed.is_final) == (is_charged, False)
