"""The separator between the cells of a table.

A first line such as `sep=;` names it, as in Excel. Otherwise the header decides, since it names
fields: a separator counts if a field stands between its cells. The rows below never decide, so a
prompt with semicolons in it is not taken apart.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence

from jobs.errors import RowValueError
from jobs.manifest.tables.cells import any_whole_number

SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
_KEY = re.compile(r"[ \t]*(?:-[ \t]+)?(\w+):(?:\s|$)")
_NAMED = re.compile(r'"?sep=(.?)"?\r?\n?', re.IGNORECASE)


def named_separator(line: str) -> str | None:
    """Return the separator that a first line `sep=;` names; None if it is another line.

    Raises:
        RowValueError: the line names a separator that tables do not have.
    """
    found = _NAMED.fullmatch(line)
    if found and found[1] not in SEPARATORS:
        raise RowValueError(f"sep= must name one of {', '.join(SEPARATORS.values())}")
    return found[1] if found else None


def header_separator(line: str, is_known: Callable[[str], bool], usual: str) -> str:
    """Return the separator of a table whose header is `line`.

    Args:
        is_known: returns True for the name of a column that a manifest may have.
        usual: separator of a header that has one column, or that names nothing known.

    Raises:
        RowValueError: more than one separator fits.
    """
    headers = {separator: split_line(line, separator) for separator in SEPARATORS}
    found = [one for one, cells in headers.items() if len(cells) > 1 and any(map(is_known, cells))]
    if len(found) > 1:
        found = [one for one in found if all(map(is_known, filter(None, headers[one])))] or found
    if len(found) > 1:
        choice = " or ".join(SEPARATORS[separator] for separator in found)
        raise RowValueError(
            f"the header names fields with {choice} between them; use one separator, and put the "
            "name of a column that holds another in quotes"
        )
    return found[0] if found else usual


def split_line(line: str, separator: str) -> list[str]:
    """Return the cells of a line; none if its quotes do not fit the separator."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error:
        return []


def check_quotes(cells: Sequence[str], lines: Iterable[str], separator: str) -> None:
    """Refuse a record that would have other texts if blanks before a quote did not count.

    Args:
        cells: cells of the record.
        lines: the lines that it was read from.

    Raises:
        RowValueError: a cell is `a, "b"`, whose quotes would be a part of its text.
    """
    if not any('"' in cell for cell in cells):
        return
    stripped = [cell.lstrip(" ") for cell in cells]
    if not any(
        text[:1] == '"' and text != cell for text, cell in zip(stripped, cells, strict=True)
    ):
        return
    without_blanks = next(csv.reader(lines, delimiter=separator, skipinitialspace=True), [])
    if [cell.lstrip(" ") for cell in without_blanks] != stripped:
        raise RowValueError(
            'a blank stands before a quote ("), which would make the quotes a part of the text; '
            "remove the blank"
        )


def check_list_line(line: str, is_known: Callable[[str], bool] | None = None) -> None:
    """Refuse a line that may be meant as another thing than one text of a list of texts.

    Args:
        is_known: as in `header_separator`, to recognize a header; None below the first line.

    Raises:
        RowValueError: the line may be a comment, a row of a table or the header of one.
    """
    if line.lstrip().startswith("#"):
        raise RowValueError(
            "the line begins with '#', and a list of texts has no comments; remove the line, or "
            "write the text in YAML, JSONL or CSV if it is meant"
        )
    if "\r" in line:
        raise RowValueError("lines end in CR, as on old Macs; save the file with LF or CR LF")
    if "\t" in line:
        raise RowValueError(
            "the line holds a tab, as a row of a table does; name a table .tsv, with the names of "
            "its fields in the first line, or replace the tab by a space"
        )
    if is_known is None:
        return
    if _is_object(line):
        raise RowValueError(
            "the line is a JSON object; name a file of them .jsonl, or remove the line from a list "
            "of texts"
        )
    key = _KEY.match(line)
    if key and is_known(key[1]):
        raise RowValueError(
            f"the line begins with the field {key[1]}, as in YAML; name a manifest in YAML .yaml, "
            "or write the text alone"
        )
    cells = split_line(line, header_separator(line, is_known, ","))
    if cells and all(map(is_known, cells)):
        raise RowValueError(
            "the line names fields, as the header of a table does; name a table .csv or .tsv, or "
            "remove the line from a list of texts"
        )


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line, parse_int=any_whole_number), dict)
    except (ValueError, RecursionError):
        return False
