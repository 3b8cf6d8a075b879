"""The errors of the ranks of one clip: which one is the cause, and which only follow from it."""

import traceback
from collections.abc import Sequence

import torch.distributed as dist

from pipelines.errors import GroupBrokenError, GroupError, PipelineError, RankLostError
from pipelines.third_party_texts import CONNECTION_LOST, OUT_OF_MEMORY, contains


def first_cause(own: Exception, others: Sequence[Exception]) -> Exception:
    """Return the error that the others follow from.

    A rank's own error comes before the loss of a rank, and this before lost connections.

    Args:
        own: the leader's error, a lost connection.
        others: the followers' errors.
    """
    roots = [error for error in others if not is_connection_error(error)]
    roots.sort(key=lambda error: isinstance(error, GroupError))
    if roots:
        return roots[0]
    return RankLostError(
        f"the connection among the ranks was lost, and no rank reports a cause: {own}"
    )


def is_connection_error(error: Exception) -> bool:
    """Return True if the error only shows that another rank left or is unreachable.

    Such an error is never the cause: the other rank's own error is.
    """
    if isinstance(error, PipelineError):
        return isinstance(error, GroupBrokenError)
    if contains(str(error), OUT_OF_MEMORY):
        return False
    is_text = isinstance(error, RuntimeError | ValueError) and contains(str(error), CONNECTION_LOST)
    return is_text or isinstance(error, dist.DistError)


def clear_tracebacks(error: BaseException | None) -> None:
    """Empty the finished frames of an error's tracebacks; their text stays.

    The frames hold latents and the process group. A gloo group that is still referenced keeps its
    connections open when it is destroyed, and then the ranks that wait for this one wait for the
    whole time-out (measured, torch 2.13).
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
