"""Whether a clip is tried again. A pure decision; `dispatch` carries it out. Loads without torch."""

from dataclasses import dataclass

from jobs.config import RetryPolicy
from jobs.types import ClipFailed


@dataclass(frozen=True)
class Retry:
    """Try the clip again, as this attempt."""

    attempt: int


@dataclass(frozen=True)
class GiveUp:
    """Put the clip in quarantine."""

    reason: str


@dataclass(frozen=True)
class Stop:
    """End the run: the clip is not at fault, and every other one would fail in the same way."""

    reason: str


Decision = Retry | GiveUp | Stop


def decide(failed: ClipFailed, policy: RetryPolicy) -> Decision:
    """What follows from a failed attempt.

    Only a failure that may pass is tried again, a bounded number of times. No clip is given up for the store's sake.
    """
    if failed.may_pass_on_retry and failed.attempt < policy.max_attempts:
        return Retry(failed.attempt + 1)
    if failed.failure_class == "store":
        return Stop(failed.message)
    if failed.may_pass_on_retry:
        return GiveUp(f"failed in {failed.attempt} of {policy.max_attempts} attempts")
    return GiveUp(f"{failed.error_type} does not pass on a retry")
