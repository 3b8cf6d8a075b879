"""The numbers in the cells of a table, as spreadsheets and pandas write them.

pandas writes the whole numbers of a column with gaps as `17.0`; a spreadsheet may write a decimal
comma, `4,5`. Both are read. A number with two readings is refused: `1,125` may be a thousand, as
long as no `4,5` stands above it, and a whole number of more than 53 bits that went through a float
has lost digits.
"""

import re
from dataclasses import dataclass
from typing import Self

from jobs.errors import RowValueError
from jobs.text import shown
from pipelines.texts import MAX_DIGITS

MAX_EXACT = 2**53 - 1  # the largest whole number that no other one becomes as a float
_WHOLE = re.compile(r"([+-]?[0-9]{1,19})(?:[.,](0+))?")
_NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:[.,][0-9]{3})+")
_FLOAT = re.compile(r"[+-]?[0-9]+([.,]0+|[.,]?[0-9]*[eE][+-]?[0-9]+)")
# Texts in the place of a value that is missing or that a formula did not find: pandas, SQL, Excel
# in English and German, LibreOffice.
_PLACEHOLDER = re.compile(
    r"nan|none|null|nat|n/a|<na>|\\n|#[\w/]+[!?]|#n/a|#nv|err:[0-9]{3}", re.IGNORECASE
)
MAX_PLACEHOLDER_CHARACTERS = 7  # but those with # may be longer


class LongNumber(int):
    """A whole number of more digits than Python reads: too large for every field, as is its value.

    It is printed as it is written.
    """

    text: str

    @classmethod
    def of(cls, text: str) -> Self:
        number = cls(text[: MAX_DIGITS // 2])
        number.text = text
        return number

    def __repr__(self) -> str:
        return self.text


def any_whole_number(text: str) -> int:
    """Return a whole number of JSON, however long it is."""
    return int(text) if len(text) <= MAX_DIGITS else LongNumber.of(text)


def whole_number(word: str) -> int | None:
    """Return a whole number; None if the word is none, or has more than one reading."""
    if word.isdecimal() and word.isascii() and len(word) <= 19:
        return int(word)
    found = _WHOLE.fullmatch(word)
    if not found or _GROUPED.fullmatch(word):
        return None
    value = int(found[1])
    return value if found[2] is None or abs(value) <= MAX_EXACT else None


def number(word: str) -> float | None:
    """Return a number; None if the word is none, or has more than one reading.

    A point is always a decimal point. A comma is a decimal comma unless it may separate thousands.
    """
    if not _NUMBER.fullmatch(word) or ("," in word and _GROUPED.fullmatch(word)):
        return None
    return float(word.replace(",", "."))


def remedy(word: str) -> str:
    """Return advice on a word that is not read as a number; empty if there is none."""
    if _PLACEHOLDER.fullmatch(word):
        return "; leave it out for the default"
    if _GROUPED.fullmatch(word):
        return "; it may be thousands or a fraction: write a decimal point and no thousands mark"
    if _FLOAT.fullmatch(word):
        return "; it was a float and may have lost digits: write all of them (pandas: type Int64)"
    return ""


def refuse_placeholder(name: str, text: str) -> None:
    """Refuse a text that a program wrote in the place of a missing one.

    Raises:
        RowValueError: the text is a word such as `NaN` or `#NAME?`.
    """
    word = text.strip()
    if len(word) > MAX_PLACEHOLDER_CHARACTERS and word[0] != "#":
        return
    if _PLACEHOLDER.fullmatch(word):
        raise RowValueError(
            f"{name} is {shown(text)}, which programs write for a missing value or a failed "
            "formula; leave the cell empty, or write the text in JSONL if it is meant"
        )


@dataclass
class DecimalMark:
    """The decimal mark of a table's numbers, which all its rows must share."""

    mark: str = ""
    line: int = 0

    def with_point(self, text: str) -> str:
        """Return a number with a decimal point, if earlier ones show that its comma is decimal."""
        return text.replace(",", ".") if self.mark == "," and "." not in text else text

    def check(self, word: str, line: int) -> None:
        """Take in the number `word` on a line.

        Raises:
            RowValueError: it has a decimal point and an earlier one a comma, or the reverse.
        """
        if word.isdecimal():
            return
        mark = next((one for one in ".," if one in word), "")
        if mark and self.mark and mark != self.mark:
            raise RowValueError(
                f"the number {shown(word)} has {mark!r} and one on line {self.line} has "
                f"{self.mark!r}; write all with a decimal point"
            )
        if mark and not self.mark:
            self.mark, self.line = mark, line
