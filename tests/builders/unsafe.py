"""Text that a stranger could write to move a terminal's cursor, hide text or forge a line."""

import unicodedata

FORGED = "committed 99 clips: all is well"
# ESC and its 8-bit form, BEL, back space, CR, line feeds of all kinds, bidi overrides, half of a
# surrogate pair, invisible letters, a tag
UNSAFE = (
    "\x1b[2J\x1b]0;title\x07\x9b31m\x08\r\n"
    f"{FORGED}\n\x0b\x0c\x1c\x85\u2028\u2029\u202e\u2066\ud800\u200b\ufeff\U000e0041\x7f"
)


def unsafe_characters(text: str) -> set[str]:
    """Return the characters that may reach neither a terminal nor a page; "\\n" may."""
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
