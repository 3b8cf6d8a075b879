"""The decision that follows from a clip's failures: retry, wait, quarantine, or stop the run.

Pure functions; `clips` says where and when the clip is tried again. Loads without torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.errors import FailureClass
from jobs.settings.run_config import RetryPolicy
from jobs.types import ClipFailed


@dataclass(frozen=True)
class Retry:
    """Try the clip again.

    Args:
        attempt: number of the next attempt.
        uses_exact_attention: True if the clip is to be rendered with exact attention.
    """

    attempt: int
    uses_exact_attention: bool = False


@dataclass(frozen=True)
class Wait:
    """Try the clip again when the store may be back; the clip is not charged."""

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
    """Decide about a clip after the last of its failures.

    A clip is retried only after a failure that may pass, within the budget of its class and on a
    bounded number of workers. No clip is quarantined because the store refused it.

    Args:
        failures: failures charged to the clip; the last one is the one to decide about.
    """
    last = failures[-1]
    if last.failure_class == "store":
        return Wait(last.attempt + 1) if last.may_pass_on_retry else Stop(last.message)
    if not last.may_pass_on_retry:
        return Quarantine(f"{last.error_type} would fail again on a retry")
    num_alike = sum(failed.failure_class == last.failure_class for failed in failures)
    if num_alike >= (budget := budget_of(last.failure_class, policy)):
        return Quarantine(
            f"failures of the class {last.failure_class}: {num_alike}, the limit is {budget}"
        )
    num_workers = len({failed.worker for failed in failures})
    if num_workers >= policy.max_failed_workers:
        return Quarantine(
            f"failed on {num_workers} different workers, the limit is {policy.max_failed_workers}"
        )
    return Retry(
        last.attempt + 1,
        uses_exact_attention=any(failed.failure_class == "clip" for failed in failures),
    )


def budget_of(failure_class: FailureClass, policy: RetryPolicy) -> int:
    """Return the number of retryable failures of a class at which a clip is quarantined."""
    budgets: dict[FailureClass, int] = {
        "worker": policy.max_lost_workers,
        "stall": policy.max_stalls,
        "memory": policy.max_memory_failures,
        "clip": policy.max_frame_check_failures,
    }
    return budgets.get(failure_class, 1)
