"""The notes of a row, which its record carries and which decide nothing: `meta`.

In YAML and JSONL they are a mapping `meta`. A column or field `meta.shot` gives the note `shot`,
and so does a column `shot` that the setting `extra_columns` names.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from jobs.errors import RowValueError
from jobs.manifest.tables.cells import LongNumber
from jobs.text import shown
from pipelines.errors import RequestError
from pipelines.request import check_text

META = "meta"
PREFIX = "meta."
UNWANTED = "unwanted"  # the note that says what a clip must not show; `nagfarm score` asks about it
MAX_META_NAME_CHARACTERS = 100
MAX_META_CHARACTERS = 20_000
CARRY = "to carry it into the record, name it meta.NAME or set extra_columns=[NAME]"


def meta_name(column: str, extra_columns: Collection[str]) -> str | None:
    """Return the name of the note that a column or field gives; None if it gives none."""
    if column.startswith(PREFIX):
        return column.removeprefix(PREFIX)
    return column if column in extra_columns else None


def split_meta(
    document: Mapping[str, Any], extra_columns: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the fields of a row that are not notes, and its notes.

    Raises:
        RowValueError: a note has no text or number as its value, is given twice, or is too long.
    """
    others: dict[str, Any] = {}
    entries: list[tuple[str, Any]] = []
    for name, value in document.items():
        note = meta_name(name, extra_columns)
        if note is not None:
            entries.append((note, value))
        elif name != META:
            others[name] = value
        elif isinstance(value, Mapping):
            entries.extend(value.items())
        else:
            raise RowValueError(
                f'{META} must be a mapping, such as {{"shot": "12"}}, not {shown(value)}'
            )
    return others, make_meta(entries)


def make_meta(entries: Iterable[tuple[str, Any]]) -> dict[str, str]:
    """Return notes as texts; those that are empty or null are left out.

    Raises:
        RowValueError: as `split_meta`.
    """
    notes: dict[str, str] = {}
    for name, value in entries:
        text = _text(name, value)
        if not (0 < len(name) <= MAX_META_NAME_CHARACTERS and name.isprintable()):
            raise RowValueError(
                f"the name of a note in {META} must have 1 to {MAX_META_NAME_CHARACTERS} printable "
                f"characters, not {shown(name)}"
            )
        if name in notes:
            raise RowValueError(f"{META}.{name} is given twice")
        notes[name] = text
    notes = {name: text for name, text in notes.items() if text}
    size = sum(len(name) + len(text) for name, text in notes.items())
    if size > MAX_META_CHARACTERS:
        raise RowValueError(
            f"{META} has {size:,} characters; at most {MAX_META_CHARACTERS:,} are allowed"
        )
    return notes


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, LongNumber):
        return repr(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if not isinstance(value, str):
        raise RowValueError(f"{META}.{name} must be a text or a number, not {shown(value)}")
    try:
        check_text(f"{META}.{name}", value)
    except RequestError as error:
        raise RowValueError(str(error)) from error
    return value
