"""Ray's errors, translated: which error of ours they are, and which part of their text is shown.

Decides by Ray's classes and attributes (`actor_init_failed`, `preempted`), never by its text. Ray's
texts run over many lines, so people are shown one of them. Seen with ray 2.60.
"""

import ray.exceptions

from jobs.failures import classify
from jobs.redaction import redact
from jobs.schedule.events import WorkerId, WorkerNotLoaded
from pipelines.errors import RankLostError, RankPreemptedError


def first_line(error: BaseException) -> str:
    """Return the first line of the error's text that is not empty, which says what happened."""
    return next(
        (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
    )


def last_line(error: BaseException) -> str:
    """Return the last line of the error's text; of a traceback it is the error itself."""
    return next(
        (line.strip() for line in reversed(str(error).splitlines()) if line.strip()),
        type(error).__name__,
    )


def rank_error(error: ray.exceptions.RayError, who: str = "a rank") -> Exception:
    """Return the error that a rank raised, or a `RankLostError` if its process is gone.

    Args:
        error: the failure of a call to the rank's actor.
        who: the rank's name in messages.
    """
    if isinstance(error, ray.exceptions.RayTaskError):
        return error.cause if isinstance(error.cause, Exception) else error
    # The rank raised an error that cannot be unpickled here; its text arrived with its traceback.
    if isinstance(error, ray.exceptions.UnserializableException):
        return error
    # Another process would fail to start in the same way.
    if isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed:
        return RuntimeError(f"{who} could not be started: {last_line(error)}")
    kind = RankPreemptedError if is_preempted(error) else RankLostError
    return kind(f"{who} is gone: {first_line(error)}")


def load_failure(worker: WorkerId, model: str, error: ray.exceptions.RayError) -> WorkerNotLoaded:
    """Return the event for a worker that did not load its model, or whose process is gone.

    Args:
        worker: the schedule's number of the worker.
        model: the model's name in messages.
        error: the failure of the call that loads the model.
    """
    is_charged = not is_preempted(error)
    if isinstance(error, ray.exceptions.RayTaskError):
        message = redact(f"could not load {model}: {error.cause}")
        failure_class, may_pass = classify(error.cause)
        is_store = may_pass and failure_class == "store"
        return WorkerNotLoaded(
            worker, message, not may_pass, is_store=is_store, is_charged=is_charged
        )
    is_final = isinstance(error, ray.exceptions.RayActorError) and error.actor_init_failed
    message = redact(last_line(error) if is_final else first_line(error))
    return WorkerNotLoaded(worker, message, is_final, is_charged=is_charged)


def is_preempted(error: ray.exceptions.RayError) -> bool:
    """Return True if the cluster took a machine away: the worker's, or that of one of its ranks."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return isinstance(error.cause, RankPreemptedError)
    return isinstance(error, ray.exceptions.RayActorError) and bool(error.preempted)


def loss_reason(error: ray.exceptions.RayError) -> str:
    """Return the reason for which an actor is lost: its process is gone, or it raised an error."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return redact(f"{type(error.cause).__name__}: {first_line(error.cause)}")
    return first_line(error)
