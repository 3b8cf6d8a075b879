"""Frozen dataclasses to JSON and back, strictly: no missing field, no unknown one, exact types.

Decides how a value is written, so that the same value always gives the same bytes, and the largest
numbers that are read, so that no sum of them overflows. It knows no schema; a field whose name ends
in `_s` or `_at` holds seconds.
"""

import json
import sys
import types
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import (
    Any,
    Literal,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from jobs.errors import JobError, RecordError
from jobs.escaping import plain_document
from jobs.text import shown
from pipelines.errors import PipelineError
from pipelines.texts import MAX_DIGITS

MAX_DOCUMENT_BYTES = 50_000_000
MAX_WHOLE = 2**63 - 1  # the largest seed; no size and no count comes near
MAX_SECONDS = 253_402_300_799  # since 1970: the end of the year 9999, and of Python's calendar
TIME_SUFFIXES = ("_s", "_at")
AS_THEY_ARE = frozenset({str, int, float, bool, type(None)})
T = TypeVar("T")


def dump(document: Mapping[str, object]) -> bytes:
    """Return UTF-8 JSON, indented by two spaces, with the keys in their given order.

    Characters that are unsafe to print become JSON escapes that read back as the same characters.

    Raises:
        RecordError: when a number is not finite, or a value has a type that JSON lacks.
    """
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RecordError(f"cannot be written as JSON: {error}") from error
    return plain_document(text + "\n").encode()


def load(content: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises RecordError for other content and for repeated keys."""
    if len(content) > MAX_DOCUMENT_BYTES:
        raise RecordError(f"expected at most {MAX_DOCUMENT_BYTES:,} bytes, got more")
    try:
        document = json.loads(
            content,
            object_pairs_hook=without_repeats,
            parse_constant=refuse_constant,
            parse_int=whole_number,
        )
    except (ValueError, RecursionError) as error:
        raise RecordError(f"not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise RecordError(f"expected a JSON object, got a {type(document).__name__}")
    return cast("dict[str, Any]", document)


def whole_document(pieces: Iterable[bytes]) -> bytes:
    """Return the pieces of an object as one; stop reading where `load` refuses the length."""
    content = bytearray()
    for piece in pieces:
        content += piece
        if len(content) > MAX_DOCUMENT_BYTES:
            break
    return bytes(content)


def from_dataclass(value: object) -> Any:
    """Convert a dataclass, field by field, to the values that `dump` takes."""
    if type(value) in AS_THEY_ARE:
        return value
    if (names := field_names(type(value))) is not None:
        return {name: from_dataclass(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        entries = cast("Mapping[str, object]", value)
        return {key: from_dataclass(entries[key]) for key in sorted(entries)}
    if isinstance(value, tuple):
        return [from_dataclass(entry) for entry in cast("tuple[object, ...]", value)]
    return value


def to_dataclass(cls: type[T], document: Any, where: str = "") -> T:
    """Build a dataclass from a JSON object.

    Raises:
        RecordError: with the field, the expected type and the value that came.
    """
    if not isinstance(document, dict):
        raise RecordError(f"{where or 'the record'} must be an object, not {shown(document)}")
    hints = field_types(cls)
    given = cast("dict[str, Any]", document)
    if missing := [name for name in hints if name not in given]:
        raise RecordError(f"{where or 'the record'} lacks {', '.join(missing)}")
    if unknown := [name for name in given if name not in hints]:
        raise RecordError(
            f"{where or 'the record'} has unknown fields: {', '.join(map(repr, unknown))}"
        )
    values = {
        name: value
        if is_plain(hint, value := given[name])
        else convert(hint, value, f"{where}.{name}".removeprefix("."))
        for name, hint in hints.items()
    }
    try:
        return cls(**values)
    except (JobError, PipelineError, ValueError, ArithmeticError) as error:
        raise RecordError(f"{where}: {error}".removeprefix(": ")) from error


@cache
def field_names(cls: type[Any]) -> tuple[str, ...] | None:
    """Return the names of a dataclass's fields; None for another class."""
    return tuple(field.name for field in fields(cls)) if is_dataclass(cls) else None


@cache
def field_types(cls: type[Any]) -> dict[str, Any]:
    """Return the type of each field, whose evaluation takes longer than the rest of a reading."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


@cache
def parts_of(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Return the origin and the arguments of an annotation, and True if it is a dataclass."""
    return get_origin(hint), get_args(hint), is_dataclass(hint)


def is_plain(hint: Any, value: Any) -> bool:
    """Return True for a value that already has its type. A number may still be too large."""
    if type(value) is not hint or hint is float:
        return False
    return hint is not int or -MAX_WHOLE <= value <= MAX_WHOLE


def is_finite(value: Any) -> TypeGuard[int | float]:
    """Return True for a number that a float can hold; a whole number in JSON can be larger."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_time(where: str) -> bool:
    """Return True for a field of seconds, and for one inside a field of seconds by stage."""
    return any(part.endswith(TIME_SUFFIXES) for part in where.split("."))


def convert(hint: Any, value: Any, where: str) -> Any:
    """Convert a JSON value to the type of a field's annotation."""
    origin, arguments, is_record = parts_of(hint)
    if is_record:
        return to_dataclass(cast("type[Any]", hint), value, where)
    if origin in (Union, types.UnionType):  # the schemas use only `X | None`
        return (
            None
            if value is None
            else convert(next(one for one in arguments if one is not type(None)), value, where)
        )
    if origin is tuple and isinstance(value, list):
        entries = cast("list[Any]", value)
        return tuple(
            convert(arguments[0], entry, f"{where}[{index}]") for index, entry in enumerate(entries)
        )
    if origin is Mapping and isinstance(value, dict):
        pairs = cast("dict[str, Any]", value)
        return {key: convert(arguments[1], entry, f"{where}.{key}") for key, entry in pairs.items()}
    is_literal = origin is Literal and isinstance(value, str) and value in arguments
    if is_literal or is_plain(hint, value):
        return value
    if hint is int and type(cast("object", value)) is int:
        raise RecordError(f"{where} must be at most {MAX_WHOLE} in size, not {shown(value)}")
    if hint is float and is_finite(value):  # other programs write 8.0 as 8
        if abs(value) > MAX_SECONDS and is_time(where):
            raise RecordError(f"{where} must be at most {MAX_SECONDS} seconds, not {shown(value)}")
        return float(value)
    expected = (
        " or ".join(map(repr, arguments))
        if origin is Literal
        else getattr(hint, "__name__", str(hint))
    )
    raise RecordError(f"{where} must be {expected}, not {shown(value)}")


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return document


def whole_number(text: str) -> int:
    """Read a whole number, unless Python, whose own limit may be set this low, could not print it.

    Raises:
        ValueError: it has too many digits.
    """
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a whole number has {len(text):,} digits; at most {MAX_DIGITS} are read")
    return int(text)


def refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
