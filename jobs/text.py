"""Wording for people: counts, times, a value cut to one line, and the word nearest to a wrong one.

Error messages and the commands share it.
"""

import difflib
import time
from collections.abc import Iterable

_MAX_SHOWN_CHARACTERS = 60
_MAX_COMPARED_CHARACTERS = 200  # difflib takes time by the product of the lengths


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as "1 clip" and "2,000 clips"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in the largest unit of which there are at least two. Never negative."""
    left_s = max(seconds, 0.0)  # negative if the clocks of two machines differ
    for unit, size_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if left_s >= 2 * size_s:
            return f"{left_s / size_s:.0f} {unit}"
    return f"{left_s:.0f} s"


def log_time(seconds: float) -> str:
    """Return a moment in UTC, to the second, as a run's log shows it: 2026-01-31T12:00:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def shown(value: object, max_characters: int = _MAX_SHOWN_CHARACTERS) -> str:
    """Return `value` as Python writes it, cut to fit a message.

    Control characters and half surrogates are escaped.
    """
    try:
        text = repr(value[: max_characters + 1] if isinstance(value, str) else value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= max_characters else f"{text[:max_characters]}..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that the user probably meant; None if no word is similar."""
    if len(word) > _MAX_COMPARED_CHARACTERS:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(word.strip().lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def unknown(role: str, word: str, known: Iterable[str]) -> str:
    """Return an error message such as "unknown key 'sead'; did you mean 'seed'?"."""
    known = list(known)
    candidate = nearest(word, known)
    remedy = f"did you mean {candidate!r}?" if candidate else f"known are {', '.join(known)}"
    return f"unknown {role} {shown(word)}; {remedy}"
