"""The back-off from a store that refuses clips, and the end of a long outage.

Uses the schedule's clock alone. An outage begins with a refusal that may pass, and ends when an
answer of the store shows that it works again. Loads without torch.
"""

from jobs.errors import StoreUnavailableError
from jobs.settings.run_config import RetryPolicy


class Outage:
    """The current outage of the store, if there is one."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._since: float | None = None

    @property
    def is_on(self) -> bool:
        """Return True from a refusal until an answer shows that the store works again."""
        return self._since is not None

    def next_back_off(self, back_off_s: float) -> float:
        """Return the next back-off: double, clamped to [back_off_s, max_back_off_s]."""
        return min(max(2 * back_off_s, self._policy.back_off_s), self._policy.max_back_off_s)

    def record_refusal(
        self, now: float, message: str, *, is_computing: bool
    ) -> StoreUnavailableError | None:
        """Record that a clip could not be committed, or a model not be read.

        Args:
            message: the latest refusal, which may also be a full disk.
            is_computing: True if a clip is being computed, which will be spooled.

        Returns:
            The error that ends the run, once the outage has lasted too long and no clip is
            computed any more; None before.
        """
        if self._since is None:
            self._since = now
        outage_s = now - self._since
        if is_computing or outage_s <= self._policy.max_outage_s:
            return None
        return StoreUnavailableError(
            f"no clip could be committed for {outage_s:.0f} s, last refusal: {message}; "
            "run the same command again to go on, encoded clips are kept"
        )

    def record_answer(self, asked_at: float) -> None:
        """End the outage if the store answered a request made after the outage began."""
        if self._since is not None and asked_at > self._since:
            self._since = None

    def exclude_gap(self, gap_s: float) -> None:
        """Leave `gap_s` seconds out of the outage's duration."""
        if self._since is not None:
            self._since += gap_s
