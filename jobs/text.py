"""Wording for error messages: a value cut to one line, and the word nearest to a wrong one."""

import difflib
from collections.abc import Iterable

_MAX_SHOWN_CHARACTERS = 60
_MAX_COMPARED_CHARACTERS = 200  # difflib takes time by the product of the lengths


def shown(value: object) -> str:
    """Return `value` as Python writes it, cut to fit a message.

    Control characters and half surrogates are escaped.
    """
    text = repr(value[: _MAX_SHOWN_CHARACTERS + 1] if isinstance(value, str) else value)
    return text if len(text) <= _MAX_SHOWN_CHARACTERS else f"{text[:_MAX_SHOWN_CHARACTERS]}..."


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
