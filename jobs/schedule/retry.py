"""What follows from a clip's failures: again, given up, waiting for the store, or the end of the run. Pure decisions.

`schedule` asks, and says where and when the clip is tried again. Loads without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.config import RetryPolicy
from jobs.types import ClipFailed


@dataclass(frozen=True)
class Retry:
    """Try the clip again.

    Args:
        attempt: the number of that try.
        uses_exact_attention: with the safer setting.
    """

    attempt: int
    uses_exact_attention: bool = False


@dataclass(frozen=True)
class Wait:
    """Try the clip again when the store may be back; nobody is charged."""

    attempt: int


@dataclass(frozen=True)
class Quarantine:
    """Put the clip in quarantine."""

    reason: str


@dataclass(frozen=True)
class Stop:
    """End the run: the clip is not at fault, and every other one would fail in the same way."""

    reason: str


Decision = Retry | Wait | Quarantine | Stop


def decide(failures: Sequence[ClipFailed], policy: RetryPolicy) -> Decision:
    """What follows from the last of a clip's failures.

    Only a failure that may pass is tried again, within the budget of its class and on a bounded number of workers. No
    clip is given up for the store's sake.

    Args:
        failures: all that the clip is charged with and the one to decide about, at the end.
    """
    last = failures[-1]
    if last.failure_class == "store":
        return Wait(last.attempt + 1) if last.may_pass_on_retry else Stop(last.message)
    if not last.may_pass_on_retry:
        return Quarantine(f"{last.error_type} does not pass on a retry")
    num_alike = sum(failed.failure_class == last.failure_class for failed in failures)
    if num_alike >= (budget := policy.budget(last.failure_class)):
        return Quarantine(
            f"{num_alike} failures of the class {last.failure_class}, of which {budget} are allowed"
        )
    num_workers = len({failed.worker for failed in failures})
    if num_workers >= policy.max_failed_workers:
        return Quarantine(f"failed on {num_workers} different workers")
    return Retry(
        last.attempt + 1,
        uses_exact_attention=any(failed.failure_class == "clip" for failed in failures),
    )
