r"""Escape what strangers may have written, before a terminal, a log or a page shows it.

A name, a path, an error message and a record can hold characters that move a terminal's cursor,
reverse the direction of writing, hide text or begin a line of their own. Everything that is printed
passes one of these functions at the place where it is printed, so that no other code has to think
of it. Letters of all scripts and emoji stay as they are.

An escape is written as JSON writes it (`\u001b`), so that an escaped JSON document is still JSON
and says the same.
"""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

MAX_LINE = 4_000  # characters
MAX_BLOCK = 100_000  # characters; a traceback of a thousand frames
# Not all that Unicode calls a format character: emoji and Persian need the joiners U+200C and
# U+200D, and Arabic writes numbers with some. Line feed is the last of the first row.
_UNSAFE = (
    "\x00-\x09\x0b-\x1f\x7f-\x9f"  # controls: ESC, BEL, CR, CSI
    "\ud800-\udfff"  # half surrogates, which no terminal's encoding has
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction of writing
    "\u2028\u2029"  # line and paragraph separators
    "\u00ad\u180e\u200b\u2060-\u2064\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # unseen
)
# A text that a spreadsheet would run as a formula. A word such as -blurry can do nothing.
_FORMULA = re.compile(r"[=@\t\r\n\uff0b\uff0d\uff1d\uff20]|[+-].*[^A-Za-z0-9._-]", re.DOTALL)
_UNSAFE_IN_LINE = re.compile(f"[\n{_UNSAFE}]")
_UNSAFE_IN_BLOCK = re.compile(f"[{_UNSAFE}]")


def plain_line(text: str, max_characters: int = MAX_LINE) -> str:
    """Return a text of any origin as one line that is safe to print; the middle may be left out."""
    return _UNSAFE_IN_LINE.sub(_escape, shortened(text, max_characters))


def plain_block(text: str, max_characters: int = MAX_BLOCK) -> str:
    """Return a text as lines that are safe to print. Its line feeds are those of our own code."""
    return plain_document(shortened(text, max_characters))


def plain_document(text: str) -> str:
    """Return a whole page or JSON document that is safe to print; JSON says the same as before."""
    return _UNSAFE_IN_BLOCK.sub(_escape, text)


def csv_text(text: str) -> str:
    """Return a text for a cell of a CSV; an apostrophe stands before what looks like a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def json_text(document: Any, indent: int | None = None) -> str:
    """Return JSON that is safe to print, its texts cut like lines."""
    return plain_document(
        json.dumps(_with_short_texts(document), indent=indent, ensure_ascii=False)
    )


def _with_short_texts(document: Any) -> Any:
    match document:
        case str():
            return shortened(document)
        case list():
            return [_with_short_texts(entry) for entry in cast("list[Any]", document)]
        case Mapping():
            entries = cast("Mapping[str, Any]", document)
            return {shortened(key): _with_short_texts(entry) for key, entry in entries.items()}
        case _:
            return document


def shortened(text: str, max_characters: int = MAX_LINE) -> str:
    """Return a text with the middle left out if it is too long: an error's remedy is at its end."""
    if len(text) <= max_characters:
        return text
    num_last = max_characters // 4
    num_first = max_characters - num_last
    left_out = len(text) - num_first - num_last
    return f"{text[:num_first]}... ({left_out:,} characters) ...{text[-num_last:]}"


class PlainLogRecord(logging.LogRecord):
    """A record of any library's log whose message is one line that is safe to print."""

    def getMessage(self) -> str:  # noqa: N802 the library's name
        return plain_line(super().getMessage())


@dataclass(frozen=True)
class PlainRecordFactory:
    """Makes the records of all logs; Ray has a factory of its own, which stays below this one."""

    inner: Callable[..., logging.LogRecord]

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self.inner(*args, **kwargs)
        if type(record) is logging.LogRecord:
            record.__class__ = PlainLogRecord
        return record


def escape_logs() -> None:
    """Make the messages of all loggers of this process safe to print."""
    inner = logging.getLogRecordFactory()
    if not isinstance(inner, PlainRecordFactory):
        logging.setLogRecordFactory(PlainRecordFactory(inner))


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(
        f"\\u{units[index]:02x}{units[index + 1]:02x}" for index in range(0, len(units), 2)
    )
