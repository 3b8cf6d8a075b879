"""Manifests with one clip a line, streamed: JSONL, and a list of prompts; `csv_table` has tables.

A flat file has no header section: the run takes the name of the file, and the caller gives the
output and the default model.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from jobs.errors import RowValueError, UnfinishedRowError
from jobs.manifest.csv_table import read_table
from jobs.manifest.field_values import at, check_field, check_value
from jobs.manifest.fields import FIELDS, PARALLEL, is_column
from jobs.manifest.lines import (
    FileWatch,
    Hasher,
    Lines,
    ManifestFile,
    S3File,
    SourceLocation,
    open_manifest_file,
    read_lines,
)
from jobs.manifest.rows import NumberedRow, Row, read_parallel, with_guidance_fields
from jobs.manifest.tables.cells import any_whole_number
from jobs.manifest.tables.dialect import check_list_line
from jobs.manifest.tables.meta import META, split_meta
from jobs.manifest.walk.selection import ALL_ROWS, Wanted
from jobs.text import shown

Reader = Callable[[ManifestFile, Lines, Wanted], Iterator[NumberedRow]]


@dataclass(frozen=True)
class FlatFile:
    """The rows that a flat file had when it was opened, read again on every pass.

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

    def rows(self, wanted: Wanted = ALL_ROWS) -> Iterator[NumberedRow]:
        """Stream the wanted rows with their numbers.

        Raises:
            ManifestError: a row is wrong, or, at the end, the file was rewritten since.
        """
        hasher = hashlib.sha256()
        try:
            yield from self.reader(self.path, self._lines(hasher), wanted)
        except UnfinishedRowError:
            if not self.watch.goes_on():
                raise
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


def open_flat_file(path: ManifestFile, extra_columns: Collection[str] = ()) -> FlatFile:
    """Open a flat file and take its digest, to notice a change between two passes.

    Raises:
        ManifestError: the suffix is unknown, or the file cannot be read.
    """
    reader = _reader_of(path, extra_columns)
    with open_manifest_file(path) as stream:
        try:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            # a BytesIO is digested without being read
            num_bytes = len(path.content) if isinstance(path, S3File) else stream.tell()
        except OSError as error:
            location = SourceLocation(str(path), 1)
            raise location.refuse(f"cannot be read: {error.strerror}") from error
    return FlatFile(path, FileWatch(path, num_bytes, digest), reader)


def _reader_of(path: ManifestFile, extra_columns: Collection[str]) -> Reader:
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return partial(read_jsonl, extra_columns=extra_columns)
        case ".csv":
            return partial(read_table, separator=",", extra_columns=extra_columns)
        case ".tsv":
            return partial(read_table, separator="\t", extra_columns=extra_columns)
        case ".txt":
            return read_prompts
        case suffix:
            raise SourceLocation(str(path), 1).refuse(
                "expected a manifest in .yaml, .yml, .jsonl, .ndjson, .csv, .tsv or .txt, "
                f"not {shown(suffix)}; save a spreadsheet as CSV UTF-8"
            )


def read_jsonl(
    path: ManifestFile, lines: Lines, wanted: Wanted, extra_columns: Collection[str] = ()
) -> Iterator[NumberedRow]:
    """Yield a row for each line, which holds one JSON object. Skip blank lines."""
    index, file = -1, str(path)
    for number, line in lines:
        if not line.strip():
            continue
        index += 1
        if not wanted[index]:
            continue
        location = SourceLocation(file, number)
        try:
            values = _object_values(_decoded(line), extra_columns)
        except RowValueError as error:
            raise location.refuse(str(error)) from error
        yield index, Row(values, location)


def read_prompts(path: ManifestFile, lines: Lines, wanted: Wanted) -> Iterator[NumberedRow]:
    """Yield a row for each line, which is a prompt. Skip blank lines."""
    index = -1
    for number, line in lines:
        prompt = line.rstrip("\r\n")
        if not prompt.strip():
            continue
        index += 1
        if not wanted[index]:
            continue
        location = SourceLocation(str(path), number)
        with at(location):
            check_list_line(prompt, is_column if index == 0 else None)
        yield index, Row({"prompt": prompt}, location)


def _decoded(line: str) -> object:
    try:
        if line[0] == "{" and line[-2:] == "}\n":  # as most lines are written
            document, end = _DECODER.raw_decode(line)
            if end == len(line) - 1:
                return document
        return _DECODER.decode(line)
    except RecursionError as error:
        raise RowValueError("expected a flat JSON object, this one is nested too deeply") from error
    except json.JSONDecodeError as error:
        is_last = "" if line.endswith("\n") else "; is the file still being written?"
        raise RowValueError(
            f"expected a JSON object: {error.msg} at column {error.colno}{is_last}"
        ) from error
    except RowValueError:
        raise
    except ValueError:  # int() refuses more than 4,300 digits
        return _SLOW_DECODER.decode(line)  # the field that has the number refuses it


def _object_values(document: object, extra_columns: Collection[str]) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise RowValueError(
            f'expected a JSON object, such as {{"prompt": "a red circle"}}, not {shown(document)}'
        )
    if document.keys() <= FIELDS.keys():  # as in most rows
        return {name: check_value(name, value) for name, value in document.items()}
    others, notes = split_meta(with_guidance_fields(document), extra_columns)
    given: dict[str, Any] = {META: notes} if notes else {}
    if PARALLEL in others:
        given[PARALLEL] = read_parallel(others.pop(PARALLEL))
    for name in others:
        check_field(name)
    return given | {name: check_value(name, value) for name, value in others.items()}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = next(name for name, count in counts.items() if count > 1)
        raise RowValueError(f"the field {shown(twice)} is given twice")
    return document


def _refuse_constant(word: str) -> None:
    raise RowValueError(f"{word} is not a number that JSON knows, nor a value of any field")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant)
_SLOW_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=any_whole_number
)
