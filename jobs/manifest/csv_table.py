"""CSV and TSV manifests: a table with one clip a row, whose header names the fields.

Tables come from spreadsheets and from pandas. `tables.dialect` finds the separator, `tables.cells`
reads the numbers. Columns and rows of empty cells, as spreadsheets write them behind the last one,
are skipped.
"""

import csv
from collections.abc import Collection, Iterator
from functools import partial
from itertools import chain
from typing import Any

from jobs.errors import RowValueError, UnfinishedRowError
from jobs.manifest.field_values import at, parse_cell
from jobs.manifest.fields import (
    CSV_COLUMNS,
    FIELDS,
    FREE_TEXTS,
    GUIDANCE,
    PARALLEL,
    PARALLEL_FIELDS,
    is_column,
)
from jobs.manifest.lines import Lines, ManifestFile, SourceLocation
from jobs.manifest.rows import NumberedRow, Row, with_parallel
from jobs.manifest.tables.cells import DecimalMark, refuse_placeholder
from jobs.manifest.tables.dialect import SEPARATORS, check_quotes, header_separator, named_separator
from jobs.manifest.tables.meta import CARRY, META, make_meta, meta_name
from jobs.manifest.walk.selection import Wanted
from jobs.text import counted, unknown

# Limits a row over many lines, since an open quote would swallow the file.
MAX_RECORD_CHARACTERS = 4 * 1024 * 1024
_MAPPINGS = {GUIDANCE: "method", PARALLEL: "ulysses", META: "meta.shot"}  # each with an example
_ALL_FIELDS = FIELDS | PARALLEL_FIELDS


def read_table(
    path: ManifestFile,
    lines: Lines,
    wanted: Wanted,
    separator: str,
    extra_columns: Collection[str] = (),
) -> Iterator[NumberedRow]:
    """Yield a row for each record below the header.

    An empty cell is a field that the row does not give.

    Args:
        separator: separator of a table that has one column.
        extra_columns: columns that become notes, besides those with a name such as `meta.shot`.
    """
    feed = _open_feed(path, lines, separator, extra_columns)
    if feed is None or (first := feed.next_record()) is None:
        return
    location, header = first
    with at(location):
        columns = _Columns(header, feed.separator, extra_columns)
    index = -1
    while (record := feed.next_record()) is not None:
        location, cells = record
        if not any(map(str.strip, cells)):
            continue
        index += 1
        if not wanted[index]:
            continue
        try:
            values = columns.values(cells, location.line)
        except RowValueError as error:
            raise location.refuse(str(error)) from error
        yield index, Row(values, location)


def _open_feed(
    path: ManifestFile, lines: Lines, usual: str, extra_columns: Collection[str]
) -> "_CsvFeed | None":
    """Return the records of a table, the header first; None if the file is empty."""

    def is_known(name: str) -> bool:
        return is_column(name) or meta_name(name, extra_columns) is not None

    if (first := next(lines, None)) is None:
        return None
    with at(SourceLocation(str(path), 1)):
        separator = named_separator(first[1])
        if separator:
            return _CsvFeed(path, lines, separator, num_lines_read=1)
        separator = header_separator(first[1], is_known, usual)
    return _CsvFeed(path, chain([first], lines), separator)


class _Columns:
    """The columns that a header names, and the values of a row below it."""

    def __init__(self, header: list[str], separator: str, extra_columns: Collection[str]) -> None:
        names = [cell if cell.strip() else "" for cell in header]
        while names and not names[-1]:
            names.pop()
        if not names:
            raise RowValueError("the first row must name the fields, it is blank")
        self._names = names
        self._separator = separator
        self._notes = {name: meta_name(name, extra_columns) for name in names}
        self._decimal_mark = DecimalMark()
        self._has_parallel = not PARALLEL_FIELDS.keys().isdisjoint(names)
        for name in filter(None, names):
            self._check(name)

    def values(self, cells: list[str], line: int) -> dict[str, Any]:
        """Return the values of a row that begins on `line`.

        Raises:
            RowValueError: the row has other columns, or a cell is wrong.
        """
        num_names = len(self._names)
        if len(cells) != num_names and (
            len(cells) < num_names or any(map(str.strip, cells[num_names:]))
        ):
            raise RowValueError(
                f"expected {counted(num_names, 'cell')}, as in the header, "
                f"got {len(cells)}; {SEPARATORS[self._separator]} separates cells, and a cell "
                "that holds it must be in quotes"
            )
        values: dict[str, Any] = {}
        notes: list[tuple[str, str]] = []
        for number, (name, cell) in enumerate(zip(self._names, cells, strict=False), 1):
            if not cell.strip():
                continue
            if not name:
                raise RowValueError(
                    f"column {number} has no name in the header; name it, or leave it out (pandas: "
                    "to_csv(index=False))"
                )
            note = self._notes[name]
            if note is None:
                values[name] = self._value(name, cell, line)
            else:
                notes.append((note, cell))
        if self._has_parallel:
            values = with_parallel(values)
        if notes:
            values[META] = make_meta(notes)
        return values

    def _value(self, name: str, cell: str, line: int) -> Any:
        if name in FREE_TEXTS:
            refuse_placeholder(name, cell)
            return parse_cell(name, cell)
        field = _ALL_FIELDS[name]
        is_number = field.value_type == "number"
        value = parse_cell(name, self._decimal_mark.with_point(cell) if is_number else cell)
        if is_number or field.value_type == "whole number":
            self._decimal_mark.check(cell.strip(), line)
        return value

    def _check(self, name: str) -> None:
        if name in _MAPPINGS:
            raise RowValueError(
                f"{name} is a mapping, and CSV has no mappings: name its fields as columns, such "
                f"as {_MAPPINGS[name]}"
            )
        if self._names.count(name) > 1:
            raise RowValueError(f"the column {name!r} is there twice")
        if is_column(name) or self._notes[name] is not None:
            return
        has_known = any(map(is_column, self._names))
        remedy = CARRY if has_known else "the first row must name the fields"
        if any(separator in name for separator in SEPARATORS):
            remedy += f"; {SEPARATORS[self._separator]} separates columns here"
        raise RowValueError(f"{unknown('column', name, CSV_COLUMNS)} ({remedy})")


class _CsvFeed:
    """Lines fed to a csv reader one by one.

    So the feed knows the line on which each record begins, and stops a record that has no end.
    """

    def __init__(
        self,
        path: ManifestFile,
        lines: Lines,
        separator: str,
        num_lines_read: int = 0,
    ) -> None:
        self.separator = separator
        self._record_location = SourceLocation(str(path), 1)
        self._lines = lines
        self._line_number = num_lines_read
        self._num_characters = 0
        self._record_lines: list[str] = []
        self._is_at_end = False
        lines_of_text = iter(partial(self._next_line), None)
        self._reader = csv.reader(lines_of_text, delimiter=separator, strict=True)

    def next_record(self) -> tuple[SourceLocation, list[str]] | None:
        """Return the next record and the line on which it begins; None at the end."""
        location = SourceLocation(self._record_location.file, self._line_number + 1)
        self._record_location = location
        self._num_characters = 0
        self._record_lines.clear()
        try:
            cells = next(self._reader)
        except StopIteration:
            return None
        except csv.Error as error:
            if self._is_at_end:
                message = "the row ends inside a cell in quotes; is a quote left open?"
                raise UnfinishedRowError(f"{location}: {message}") from error
            name = SEPARATORS[self.separator]
            raise location.refuse(f"expected cells with {name} between them: {error}") from error
        try:
            check_quotes(cells, self._record_lines, self.separator)
        except RowValueError as error:
            raise location.refuse(str(error)) from error
        return location, cells

    def _next_line(self) -> str | None:
        entry = next(self._lines, None)
        if entry is None:
            self._is_at_end = True
            return None
        self._line_number, line = entry
        is_first_of_record = self._num_characters == 0
        self._num_characters += len(line)
        self._record_lines.append(line)
        if self._num_characters > MAX_RECORD_CHARACTERS:
            raise self._record_location.refuse(
                f"a row is longer than {MAX_RECORD_CHARACTERS:,} characters; is a quote left open?"
            )
        if "\0" in line:
            location = SourceLocation(self._record_location.file, self._line_number)
            raise location.refuse("the line holds a NUL character; save the file as UTF-8")
        if is_first_of_record and '"' not in line and "\r" in line.rstrip("\r\n"):
            location = SourceLocation(self._record_location.file, self._line_number)
            raise location.refuse("lines end in CR, as on old Macs; save the file as CSV UTF-8")
        return line
