"""What to say about a word that is not known: the nearest one that is, and a value short enough for one line."""

import difflib
from collections.abc import Iterable

_MAX_SHOWN_CHARACTERS = 60
_MAX_COMPARED_CHARACTERS = 200  # difflib takes time by the product of the lengths


def shown(value: object) -> str:
    """`value` as Python writes it, cut to fit a message; control characters and half surrogates come out escaped."""
    text = repr(value[: _MAX_SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` was probably meant to be."""
    if len(word) > _MAX_COMPARED_CHARACTERS:
        return None
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(word.strip().lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The message that refuses `word`, such as "unknown key 'sead'; did you mean 'seed'?"."""
    known = list(known)
    candidate = nearest(word, known)
    remedy = f"did you mean {candidate!r}?" if candidate else f"known are {', '.join(known)}"
    return f"unknown {kind} {shown(word)}; {remedy}"
