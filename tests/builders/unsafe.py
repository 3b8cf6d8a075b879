"""Text that a stranger could write to move a terminal's cursor, hide text or forge a line."""

import unicodedata
from collections.abc import Iterator
from typing import Any

FORGED = "committed 99 clips: all is well"
# ESC and its 8-bit form, BEL, back space, CR, line feeds of all kinds, bidi overrides, half of a
# surrogate pair, invisible letters, a tag
UNSAFE = (
    "\x1b[2J\x1b]0;title\x07\x9b31m\x08\r\n"
    f"{FORGED}\n\x0b\x0c\x1c\x85\u2028\u2029\u202e\u2066\ud800\u200b\ufeff\U000e0041\x7f"
)
UNSAFE_PATH = UNSAFE.replace("\ud800", "\udcff")  # the byte 0xFF in a file's name


def unsafe_characters(text: str) -> set[str]:
    """Return the characters that may reach neither a terminal nor a page; a line feed may."""
    return {
        letter
        for letter in set(text)
        if letter != "\n"
        and (
            unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"}
            or letter in "\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
            or letter in "\u2060\u2066\u2067\u2068\u2069\ufeff"
            or "\U000e0000" <= letter <= "\U000e007f"
        )
    }


def spoilt(document: Any, planted: str = UNSAFE) -> Iterator[Any]:
    """Yield a JSON document once for each place in it that a stranger could write a text into.

    That is each value, also a number, and a further key of each object and entry of each list. A
    text is also kept, with the planted text behind it.
    """
    if isinstance(document, dict):
        for key, value in document.items():
            yield from (document | {key: changed} for changed in spoilt(value, planted))
        yield document | {planted: planted}
    elif isinstance(document, list):
        for index, value in enumerate(document):
            for changed in spoilt(value, planted):
                yield [*document[:index], changed, *document[index + 1 :]]
        yield [*document, planted]
    else:
        yield planted
        if isinstance(document, str):
            yield document + planted
