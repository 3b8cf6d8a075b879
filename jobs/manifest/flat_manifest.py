"""Manifests with one clip a row: JSONL and CSV, streamed.

A flat file has no header section: its name is the run's, and the output and the default model come from the caller.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jobs.manifest.guidance_fields import with_guidance_fields
from jobs.manifest.lines import Hasher, Place, open_regular_file, read_lines
from jobs.manifest.parallel_fields import read_parallel, with_parallel
from jobs.manifest.rows import (
    FIELD_TYPES,
    GUIDANCE,
    PARALLEL,
    PARALLEL_FIELDS,
    Row,
    RowValueError,
    check_field,
    check_value,
    parse_cell,
)
from jobs.text import shown, unknown

MAX_RECORD_CHARACTERS = (
    4 * 1024 * 1024
)  # a CSV row over many lines; an open quote would swallow the file

_COLUMNS = (*FIELD_TYPES, *PARALLEL_FIELDS)
_MAPPINGS = {GUIDANCE: "method", PARALLEL: "ulysses"}  # and one of the fields of each

Reader = Callable[[Path, Hasher], Iterator[Row]]


@dataclass(frozen=True)
class FlatFile:
    """The rows of a JSONL or CSV file, read anew on every pass; `digest` is of the file as it was when opened."""

    path: Path
    digest: str
    reader: Reader

    def rows(self) -> Iterator[Row]:
        """Streams the rows.

        Raises:
            ManifestError: a row is wrong, or, at the end, the file is not the one that was opened.
        """
        hasher = hashlib.sha256()
        yield from self.reader(self.path, hasher)
        if hasher.hexdigest() != self.digest:
            raise Place(str(self.path), 1).refuse(
                "the file changed after it was opened; plan it again"
            )


def open_flat_file(path: Path, reader: Reader) -> FlatFile:
    """Takes the digest of a JSONL or CSV file, to notice when it changes between two passes."""
    with open_regular_file(path) as stream:
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise Place(str(path), 1).refuse(f"cannot be read: {error.strerror}") from error
    return FlatFile(path, digest, reader)


def read_jsonl(path: Path, hasher: Hasher) -> Iterator[Row]:
    """One JSON object a line; blank lines are skipped."""
    for number, line in read_lines(path, hasher):
        if not line.strip():
            continue
        place = Place(str(path), number)
        try:
            values = _object_values(_DECODE(line))
        except RecursionError as error:
            raise place.refuse(
                "expected a flat JSON object, this one is nested too deeply"
            ) from error
        except json.JSONDecodeError as error:
            raise place.refuse(
                f"expected a JSON object: {error.msg} at column {error.colno}"
            ) from error
        except RowValueError as error:
            raise place.refuse(str(error)) from error
        except ValueError as error:  # int() refuses more than 4,300 digits
            raise place.refuse(f"expected a JSON object: {error}") from error
        yield Row(values, place)


def read_csv(path: Path, hasher: Hasher) -> Iterator[Row]:
    """Comma-separated, the first row naming the fields; an empty cell is a field that is not given."""
    feed = _CsvFeed(path, read_lines(path, hasher))
    header = feed.next_record()
    if header is None:
        return
    _check_header(header[1], header[0])
    while (record := feed.next_record()) is not None:
        place, cells = record
        if not cells:
            continue
        if len(cells) != len(header[1]):
            raise place.refuse(
                f"expected {len(header[1])} cells, as in the header, came {len(cells)}"
            )
        try:
            given = zip(header[1], cells, strict=True)
            values = with_parallel({name: parse_cell(name, cell) for name, cell in given if cell})
        except RowValueError as error:
            raise place.refuse(str(error)) from error
        yield Row(values, place)


def _object_values(document: object) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise RowValueError(
            f'expected a JSON object, such as {{"prompt": "a red circle"}}, not {shown(document)}'
        )
    flat = with_guidance_fields(document)
    parallel = {PARALLEL: read_parallel(flat.pop(PARALLEL))} if PARALLEL in flat else {}
    for name in flat:
        check_field(name)
    return {name: check_value(name, value) for name, value in flat.items()} | parallel


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document: dict[str, Any] = {}
    for name, value in pairs:
        if name in document:
            raise RowValueError(f"the field {shown(name)} is given twice")
        document[name] = value
    return document


def _refuse_constant(word: str) -> None:
    raise RowValueError(f"{word} is not a number that JSON knows, nor a value of any field")


_DECODE = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant).decode


def _check_header(header: list[str], place: Place) -> None:
    if not header:
        raise place.refuse("the first row must name the fields, it is blank")
    for column in header:
        if column in _MAPPINGS:
            raise place.refuse(
                f"{column} is a mapping, which CSV has none of: name its fields as columns, such as {_MAPPINGS[column]}"
            )
        if column not in _COLUMNS:
            remedy = "" if set(header) & set(_COLUMNS) else " (the first row must name the fields)"
            raise place.refuse(f"{unknown('column', column, _COLUMNS)}{remedy}")
        if header.count(column) > 1:
            raise place.refuse(f"the column {column!r} is there twice")


class _CsvFeed:
    """Feeds a csv reader line by line, and so knows where each record begins, and stops one that has no end."""

    def __init__(self, path: Path, lines: Iterator[tuple[int, str]]) -> None:
        self._record_place = Place(str(path), 1)
        self._lines = lines
        self._line_number = 0
        self._num_characters = 0
        self._reader = csv.reader(iter(partial(self._next_line), None), strict=True)

    def next_record(self) -> tuple[Place, list[str]] | None:
        """The next record and the line that it begins on; None at the end."""
        place = self._record_place = Place(self._record_place.file, self._line_number + 1)
        self._num_characters = 0
        try:
            return place, next(self._reader)
        except StopIteration:
            return None
        except csv.Error as error:
            raise place.refuse(f"expected comma-separated cells: {error}") from error

    def _next_line(self) -> str | None:
        entry = next(self._lines, None)
        if entry is None:
            return None
        self._line_number, line = entry
        self._num_characters += len(line)
        if self._num_characters > MAX_RECORD_CHARACTERS:
            raise self._record_place.refuse(
                f"a row is longer than {MAX_RECORD_CHARACTERS:,} characters; is a quote left open?"
            )
        if "\0" in line:
            place = Place(self._record_place.file, self._line_number)
            raise place.refuse("the line holds a NUL character; is this text?")
        return line
