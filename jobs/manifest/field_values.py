"""The values that a field of a row may have, checked, or parsed from the text of a CSV cell.

Types are strict: no value is rounded, cut or guessed. CSV and files of values have no types, so
their numbers are read from text. The dataclasses that hold the values check ranges
(`pipelines.request`, `nag.params`).
"""

import math
import re
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from jobs.errors import RowValueError
from jobs.manifest.fields import (
    FIELDS,
    GUIDANCE,
    PARALLEL,
    PARALLEL_FIELDS,
    WORDS,
    FieldType,
)
from jobs.manifest.lines import SourceLocation
from jobs.manifest.tables import cells
from jobs.manifest.tables.meta import CARRY, META
from jobs.text import shown, unknown
from pipelines.clip_inputs import MAX_REFERENCES
from pipelines.lora_choice import WrittenChoice, read_choice

MAX_NAME_CHARACTERS = 128
MAX_RUN_NAME_CHARACTERS = 100  # leaves room for the index in a clip's name
NAME_PATTERN = "[A-Za-z0-9_-][A-Za-z0-9._-]*"
_MAX_INTEGER = 2**63 - 1
_YES_NO = {"true": True, "false": False}
_ALL_FIELDS = FIELDS | PARALLEL_FIELDS
_PLAIN_TEXTS = frozenset(  # every text is a value of these
    name
    for name, one in _ALL_FIELDS.items()
    if one.value_type == "text" and not one.choices and name != "name"
)
_WHOLE_NUMBERS = frozenset(
    name for name, one in _ALL_FIELDS.items() if one.value_type == "whole number"
)
_EXPECTED: dict[FieldType, str] = {
    "text": "text",
    "whole number": "a whole number",
    "number": "a finite number",
    "yes/no": "true or false",
    "LoRAs": "names of LoRAs",
    "image file": "the name of an image",
    "image files": "names of images, in a list or separated by ';'",
    "video file": "the name of a video",
    "image or video file": "the name of an image or a video",
}
_REMEDY: dict[FieldType, str] = {"text": 'put it in quotes (")', "yes/no": "write true or false"}


@contextmanager
def at(location: SourceLocation) -> Generator[None]:
    """Turn a RowValueError of the block into a ManifestError that cites `location`."""
    try:
        yield
    except RowValueError as error:
        raise location.refuse(str(error)) from error


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A YAML word without quotes that YAML 1.1 reads neither as text nor as a plain number.

    Args:
        reading: the meaning of the word in YAML, such as "a yes/no value".
    """

    text: str
    reading: str


def check_field(name: str) -> None:
    """Refuse a name that is not a field of a row."""
    if name in PARALLEL_FIELDS:
        raise RowValueError(f"{name} is a field of {PARALLEL}: write {PARALLEL}: {{{name}: ...}}")
    if name not in FIELDS:
        known = (*FIELDS, GUIDANCE, PARALLEL, META)
        raise RowValueError(f"{unknown('field', name, known)} ({CARRY})")


def check_extra_columns(names: Iterable[str]) -> None:
    """Refuse an extra column that is a field of a row."""
    for name in names:
        if name in (*_ALL_FIELDS, GUIDANCE, PARALLEL, META):
            raise RowValueError(f"extra_columns names {name}, which is a field of a clip")


def check_value(name: str, value: object) -> Any:
    """Return the value of field `name`, which must have the field's type already.

    An int is accepted for a float, and 17.0 for 17, since JSON and pandas make no difference. Null
    is accepted for a nullable field alone.
    """
    if type(value) is str and name in _PLAIN_TEXTS:
        return value
    if type(value) is int and name in _WHOLE_NUMBERS:
        return _bounded(name, value)
    return _checked(name, value)


def _checked(name: str, value: object) -> Any:
    field = _ALL_FIELDS[name]
    is_word = isinstance(value, str) and value in WORDS.get(name, ())
    if is_word or (value is None and field.is_nullable):
        return value
    if (read := _READERS.get(field.value_type)) is not None:
        return read(name, value)
    if field.value_type == "text" and isinstance(value, str):
        if field.choices and value not in field.choices:
            raise RowValueError(unknown(name, value, field.choices))
        return check_name(value) if name == "name" else value
    if field.value_type == "whole number" and (whole := _whole(value)) is not None:
        return _bounded(name, whole)
    if field.value_type == "number" and type(value) in (int, float):
        assert isinstance(value, int | float)
        number = float(_bounded(name, value)) if isinstance(value, int) else value
        if math.isfinite(number):
            return number
    if field.value_type == "yes/no" and (word := _yes_no_word(value)) in _YES_NO:
        return _YES_NO[word]
    raise _refusal(name, value)


def _refusal(name: str, value: object) -> RowValueError:
    came = _described(value, _ALL_FIELDS[name].value_type)
    return RowValueError(f"{name} must be {_expected(name)}, not {came}")


def parse_cell(name: str, text: str) -> Any:
    """Return the value of field `name` from text without a type: a CSV cell or a line of a file."""
    expected = _ALL_FIELDS[name].value_type
    word = text.strip()
    value: Any = None
    match expected:
        case "whole number":
            value = cells.whole_number(word)
        case "number":
            value = cells.number(word)
        case "yes/no":
            value = _YES_NO.get(word.lower())
        case _:
            return check_value(name, text)
    if value is not None:
        return check_value(name, value)
    if word in WORDS.get(name, ()):
        return word
    raise RowValueError(f"{name} must be {_expected(name)}, not {shown(text)}{cells.remedy(word)}")


def _expected(name: str) -> str:
    """Return the values that a field may have, in words."""
    return " or ".join((_EXPECTED[_ALL_FIELDS[name].value_type], *WORDS.get(name, ())))


def check_name(name: str, max_characters: int = MAX_NAME_CHARACTERS) -> str:
    """Refuse a name that is unsafe as a file name, in a URL or as a label."""
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > max_characters:
        raise RowValueError(
            f"name must be 1 to {max_characters} letters (A-Z, a-z), digits, '.', '_' or '-', "
            f"not beginning with '.', not {shown(name)}"
        )
    return name


def _read_loras(name: str, value: object) -> WrittenChoice:
    try:
        return read_choice(value)
    except ValueError as error:
        came = f"; got {shown(value)}" if isinstance(value, str) else ""
        raise RowValueError(f"{name} {error}{came}") from error


def _read_file_name(name: str, value: object) -> str | None:
    """Return the name of a file without blanks around it; None for an empty one."""
    if not isinstance(value, str):
        raise _refusal(name, value)
    return value.strip() or None


def _read_file_names(name: str, value: object) -> tuple[str, ...]:
    """Return the names of several files from a list, or from a text with `;` between them."""
    if not isinstance(value, str | list):
        raise _refusal(name, value)
    names = value.split(";") if isinstance(value, str) else cast(list[object], value)
    if len(names) > MAX_REFERENCES:
        raise RowValueError(f"{name} must be at most {MAX_REFERENCES}, not {len(names)}")
    found: list[str] = []
    for one in names:
        if not isinstance(one, str) or not (one.strip() or value == one):
            raise RowValueError(f"{name} must be {_expected(name)}, not with {shown(one)} in it")
        found.append(one.strip())
    return tuple(filter(None, found))


_READERS: dict[FieldType, Callable[[str, object], Any]] = {
    "LoRAs": _read_loras,
    "image files": _read_file_names,
    "image file": _read_file_name,
    "video file": _read_file_name,
    "image or video file": _read_file_name,
}


def check_run_name(name: str) -> None:
    """Refuse a name of a manifest that its clips could not begin with."""
    try:
        check_name(name, MAX_RUN_NAME_CHARACTERS)
    except RowValueError as error:
        raise RowValueError(f"{error} (a manifest without a name takes the file's)") from error


def _bounded(name: str, value: int) -> int:
    if abs(value) > _MAX_INTEGER:
        digits = len(repr(value).lstrip("-"))
        raise RowValueError(
            f"{name} must be at most {_MAX_INTEGER} in size, not a number of {digits:,} digits"
        )
    return value


def _whole(value: object) -> int | None:
    if isinstance(value, float) and value.is_integer() and abs(value) <= cells.MAX_EXACT:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _yes_no_word(value: object) -> str:
    match value:
        case Unquoted(text):
            return text
        case bool():
            return str(value).lower()
        case _:
            return ""


def _described(value: object, expected: FieldType) -> str:
    """Return a description of a refused value, with the remedy if there is a plain one."""
    quote_it = _REMEDY.get(expected, "write a plain decimal number")
    match value:
        case Unquoted(text, reading):
            came = f"{shown(text)[1:-1]}, which YAML reads as {reading}: {quote_it}"
        case None:
            came = "null; leave the field out for its default"
            came += ", or put the word in quotes" if expected == "text" else ""
        case bool():
            came = f"the yes/no value {str(value).lower()}: {quote_it}"
        case int() | float():
            came = f"the number {shown(value)}" + (f": {quote_it}" if expected == "text" else "")
        case str() if expected == "number" and math.isfinite(cells.number(value) or math.inf):
            # YAML reads 1e3 as text
            came = f"the text {shown(value)}: write it without quotes and without an exponent"
        case str():
            is_quoted = value in _YES_NO if expected == "yes/no" else cells.whole_number(value)
            came = f"the text {shown(value)}" + (": remove the quotes" if is_quoted else "")
        case list():
            came = "a list; several values of one field go under axes"
            came += ", and a text that begins with [ in quotes" if expected == "text" else ""
        case _:
            came = "a mapping"
            came += "; put a text that holds ': ' in quotes" if expected == "text" else ""
    return came
