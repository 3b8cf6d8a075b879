"""How long to wait for a store that takes nothing, and when to give it up. Loads without torch.

Decides by the schedule's clock alone. Trouble begins with a refusal that may pass, and ends when the store is known to
have answered since.
"""

from jobs.config import RetryPolicy
from jobs.errors import StoreUnavailableError


class Outage:
    """The store's trouble in one run, if there is any."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._since: float | None = None

    def longer(self, back_off_s: float) -> float:
        """The next wait of one that has waited for so long: twice as long, within limits."""
        return min(max(2 * back_off_s, self._policy.back_off_s), self._policy.max_back_off_s)

    def note(self, now: float, message: str) -> StoreUnavailableError | None:
        """Something was refused once more.

        Args:
            message: by whom, and why: it may be a disk that is full.

        Returns:
            Why the run should end, once that has gone on for too long.
        """
        if self._since is None:
            self._since = now
        outage_s = now - self._since
        if outage_s <= self._policy.max_outage_s:
            return None
        return StoreUnavailableError(
            f"no clip could be committed for {outage_s:.0f} s, the last time because {message}; run it again to go on, "
            "encoded clips are kept"
        )

    def end_if_before(self, moment: float) -> None:
        """The store has answered something that was begun at that moment."""
        if self._since is not None and moment > self._since:
            self._since = None

    def shift(self, seconds: float) -> None:
        """Time passed that counts for nobody."""
        if self._since is not None:
            self._since += seconds
