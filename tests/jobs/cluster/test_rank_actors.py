"""What becomes of Ray's errors on their way from a rank to who asked it."""

from ray.exceptions import ActorDiedError, RayError, RayTaskError

from jobs.cluster.rank_actors import cause_of
from jobs.errors import StoreRefusedError
from jobs.failures import classify
from pipelines.errors import RankLostError


class DownloadError(Exception):
    """With a constructor of its own, as some libraries have, it can be pickled, but not unpickled."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(f"{message}: {status}")


def arrived(error: Exception) -> RayError:
    """As it reaches another process."""
    raised = RayTaskError(
        "load", f"Traceback (most recent call last):\n{type(error).__name__}: {error}", error
    )
    there: RayError = RayError.from_bytes(raised.to_bytes())
    return there


def test_what_a_rank_raised_arrives_as_it_was() -> None:
    cause = cause_of(arrived(MemoryError("full")))
    assert isinstance(cause, MemoryError)
    assert str(cause) == "full"


def test_a_rank_that_is_gone_is_lost() -> None:
    assert isinstance(cause_of(ActorDiedError(), "rank 1"), RankLostError)


def test_a_rank_that_could_not_be_started_says_why_and_is_not_tried_again() -> None:
    """As a single worker whose machine lacks what the store's client needs."""
    text = "Traceback (most recent call last):\njobs.errors.StoreRefusedError: there is no profile 'farm'"
    cause = cause_of(
        ActorDiedError(
            RayTaskError("__init__", text, StoreRefusedError("there is no profile 'farm'"))
        )
    )
    assert classify(cause) == ("code", False)
    assert (
        str(cause)
        == "a rank could not be started: jobs.errors.StoreRefusedError: there is no profile 'farm'"
    )


def test_a_rank_that_raised_what_cannot_be_unpickled_is_not_taken_for_one_that_is_gone() -> None:
    cause = cause_of(arrived(DownloadError("no such file", status=404)))
    assert classify(cause) == ("code", False)
    assert "DownloadError: no such file: 404" in str(cause)
