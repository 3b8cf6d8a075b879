"""The separator between the cells of a table.

A first line such as `sep=;` names it, as in Excel. Otherwise the header decides, since it names
fields: a separator counts if a field stands between its cells. The rows below never decide, so a
prompt with semicolons in it is not taken apart.
"""

import csv
import re
from collections.abc import Callable

from jobs.errors import RowValueError

SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
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
    if "\t" in line:
        raise RowValueError(
            "the line holds a tab, as a row of a table does; name a table .tsv, with the names of "
            "its fields in the first line, or replace the tab by a space"
        )
    cells = split_line(line, header_separator(line, is_known, ",")) if is_known else []
    if is_known and cells and all(map(is_known, cells)):
        raise RowValueError(
            "the line names fields, as the header of a table does; name a table .csv or .tsv, or "
            "remove the line from a list of texts"
        )
