"""The clock of this machine beside the store's, by which objects age and leases expire."""

import time

from jobs.errors import RefusedError
from jobs.store.store import Store
from jobs.text import duration

MAX_SKEW_S = 5.0  # S3's Date alone may be a second behind


def ahead_s(store: Store) -> float:
    """Return the seconds by which this machine's clock is ahead of the store's; negative if behind.

    The store's answer was made between two looks at the clock, which bounds the difference.
    """
    before, stores, after = time.time(), store.now(), time.time()
    return before - stores if before > stores else min(0.0, after - stores)


def clock_text(ahead: float) -> str:
    """Return a difference as text, up to the name of the other clock."""
    direction = "ahead of" if ahead > 0 else "behind"
    return f"this machine's clock is {duration(abs(ahead))} {direction}"


def refuse_wrong_clock(store: Store) -> None:
    """Refuse a clock of this machine that differs from the store's.

    Raises:
        RefusedError: it differs by more than `MAX_SKEW_S`.
    """
    ahead = ahead_s(store)
    if abs(ahead) > MAX_SKEW_S:
        raise RefusedError(
            f"{clock_text(ahead)} the clock of {store.uri}, so that ages cannot be trusted; "
            "set it, as by NTP"
        )
