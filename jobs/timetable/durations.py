"""Durations as people write them: 90s, 30m, 2h30m, 1.5h, 7d. Loads without torch."""

import re

from jobs.errors import RefusedError
from jobs.text import shown

UNITS_S = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
# Each unit once, the largest first; at most nine digits, so that no number is infinite.
_DURATION = re.compile(
    "".join(rf"(?:([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?){unit})?" for unit in UNITS_S)
)
FORM = "a number and d, h, m or s, such as 30m or 2h30m"


def duration_of(written: str) -> float | None:
    """Return a duration in seconds; None if the text is none."""
    found = _DURATION.fullmatch(written)
    if found is None or not written:
        return None
    parts = zip(found.groups(), UNITS_S.values(), strict=True)
    return sum(float(number) * unit_s for number, unit_s in parts if number is not None)


def read_duration(option: str, written: str) -> float:
    """Return the duration that an option gives, in seconds.

    Raises:
        RefusedError: the text is not a duration.
    """
    found = duration_of(written)
    if found is None:
        raise RefusedError(f"{option}: expected {FORM}, got {shown(written)}")
    return found
