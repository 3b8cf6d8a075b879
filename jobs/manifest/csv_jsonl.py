"""CSV and JSONL manifests, one clip a row, streamed.

A flat file has no header section: the run takes the name of the file, and the caller gives the
output and the default model.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs.manifest.field_values import RowValueError, at, check_field, check_value, parse_cell
from jobs.manifest.fields import FIELDS, GUIDANCE, PARALLEL, PARALLEL_FIELDS
from jobs.manifest.lines import (
    FileWatch,
    Hasher,
    ManifestFile,
    SourceLocation,
    open_manifest_file,
    read_lines,
)
from jobs.manifest.rows import Row, read_parallel, with_guidance_fields, with_parallel
from jobs.text import shown, unknown

# Limits a CSV row over many lines, since an open quote would swallow the file.
MAX_RECORD_CHARACTERS = 4 * 1024 * 1024

CSV_COLUMNS = (*FIELDS, *PARALLEL_FIELDS)
_MAPPINGS = {GUIDANCE: "method", PARALLEL: "ulysses"}  # with one field of each as an example

Lines = Iterator[tuple[int, str]]  # each with its number, from 1, and its line end
Reader = Callable[[ManifestFile, Lines], Iterator[Row]]


@dataclass(frozen=True)
class FlatFile:
    """The rows that a JSONL or CSV file had when it was opened, read again on every pass.

    Rows that are appended later are left for the next run.

    Args:
        watch: the content of the file when it was opened.
    """

    path: ManifestFile
    watch: FileWatch
    reader: Reader

    @property
    def digest(self) -> str:
        return self.watch.sha256

    def rows(self) -> Iterator[Row]:
        """Stream the rows.

        Raises:
            ManifestError: a row is wrong, or, at the end, the file was rewritten since.
        """
        hasher = hashlib.sha256()
        yield from self.reader(self.path, self._lines(hasher))
        if hasher.hexdigest() != self.digest:
            raise SourceLocation(str(self.path), 1).refuse(
                "the file changed after it was opened; plan it again"
            )

    def _lines(self, hasher: Hasher) -> Lines:
        """Yield the lines; leave out half a line at the end, which was being written."""
        for number, line in read_lines(self.path, hasher, self.watch.num_bytes):
            if not line.endswith("\n") and self.watch.is_half_a_line():
                return
            yield number, line


def open_flat_file(path: ManifestFile, reader: Reader) -> FlatFile:
    """Open a JSONL or CSV file and take its digest, to notice a change between two passes."""
    with open_manifest_file(path) as stream:
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            num_bytes = stream.tell()
        except OSError as error:
            location = SourceLocation(str(path), 1)
            raise location.refuse(f"cannot be read: {error.strerror}") from error
    return FlatFile(path, FileWatch(path, num_bytes, digest), reader)


def read_jsonl(path: ManifestFile, lines: Lines) -> Iterator[Row]:
    """Yield a row for each line, which holds one JSON object. Skip blank lines."""
    for number, line in lines:
        if not line.strip():
            continue
        location = SourceLocation(str(path), number)
        with at(location):
            values = _object_values(_decoded(line))
        yield Row(values, location)


def read_csv(path: ManifestFile, lines: Lines) -> Iterator[Row]:
    """Yield a row for each CSV record; the first record names the fields.

    An empty cell is a field that the row does not give.
    """
    feed = _CsvFeed(path, lines)
    first = feed.next_record()
    if first is None:
        return
    location, header = first
    with at(location):
        _check_header(header)
    while (record := feed.next_record()) is not None:
        location, cells = record
        if not cells:
            continue
        if len(cells) != len(header):
            raise location.refuse(
                f"expected {len(header)} cells, as in the header, got {len(cells)}"
            )
        with at(location):
            given = zip(header, cells, strict=True)
            values = with_parallel({name: parse_cell(name, cell) for name, cell in given if cell})
        yield Row(values, location)


def _decoded(line: str) -> object:
    try:
        return _DECODE(line)
    except RecursionError as error:
        raise RowValueError("expected a flat JSON object, this one is nested too deeply") from error
    except json.JSONDecodeError as error:
        is_last = "" if line.endswith("\n") else "; is the file still being written?"
        raise RowValueError(
            f"expected a JSON object: {error.msg} at column {error.colno}{is_last}"
        ) from error
    except RowValueError:
        raise
    except ValueError as error:  # int() refuses more than 4,300 digits
        raise RowValueError(f"expected a JSON object: {error}") from error


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


def _check_header(header: list[str]) -> None:
    if not header:
        raise RowValueError("the first row must name the fields, it is blank")
    for column in header:
        if column in _MAPPINGS:
            raise RowValueError(
                f"{column} is a mapping, and CSV has no mappings: name its fields as columns, "
                f"such as {_MAPPINGS[column]}"
            )
        if column not in CSV_COLUMNS:
            has_known = bool(set(header) & set(CSV_COLUMNS))
            remedy = "" if has_known else " (the first row must name the fields)"
            raise RowValueError(f"{unknown('column', column, CSV_COLUMNS)}{remedy}")
        if header.count(column) > 1:
            raise RowValueError(f"the column {column!r} is there twice")


class _CsvFeed:
    """Lines fed to a csv reader one by one.

    So the feed knows the line on which each record begins, and stops a record that has no end.
    """

    def __init__(self, path: ManifestFile, lines: Lines) -> None:
        self._record_location = SourceLocation(str(path), 1)
        self._lines = lines
        self._line_number = 0
        self._num_characters = 0
        self._reader = csv.reader(iter(partial(self._next_line), None), strict=True)

    def next_record(self) -> tuple[SourceLocation, list[str]] | None:
        """Return the next record and the line on which it begins; None at the end."""
        location = SourceLocation(self._record_location.file, self._line_number + 1)
        self._record_location = location
        self._num_characters = 0
        try:
            return location, next(self._reader)
        except StopIteration:
            return None
        except csv.Error as error:
            raise location.refuse(f"expected comma-separated cells: {error}") from error

    def _next_line(self) -> str | None:
        entry = next(self._lines, None)
        if entry is None:
            return None
        self._line_number, line = entry
        self._num_characters += len(line)
        if self._num_characters > MAX_RECORD_CHARACTERS:
            raise self._record_location.refuse(
                f"a row is longer than {MAX_RECORD_CHARACTERS:,} characters; is a quote left open?"
            )
        if "\0" in line:
            location = SourceLocation(self._record_location.file, self._line_number)
            raise location.refuse("the line holds a NUL character; is this text?")
        return line
