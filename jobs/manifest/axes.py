"""The axes of a YAML manifest, and the grid of clips that they span.

The grid is never held: the values of row `index` are found by arithmetic, so that ten million
clips take no more memory than the values of their axes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from jobs.errors import RowValueError
from jobs.manifest.field_values import at, check_value, parse_cell
from jobs.manifest.fields import FIELDS, GUIDANCE, TEXT_TYPES, is_column
from jobs.manifest.lines import SourceLocation
from jobs.manifest.rows import Given, NumberedRow, Row
from jobs.manifest.tables.dialect import check_list_line
from jobs.manifest.tables.encoding import LineTable
from jobs.manifest.walk.combine import Combination
from jobs.manifest.walk.selection import Wanted
from jobs.text import shown

MAX_GRID_CLIPS = 10_000_000


class Axis(Protocol):
    """The values of one field, or of the guidance fields together, with the line of each."""

    def __len__(self) -> int: ...

    def value(self, index: int) -> Any: ...

    def location(self, index: int) -> SourceLocation: ...


@dataclass(frozen=True)
class ListAxis:
    """Values that stand in the manifest, already checked."""

    file: str
    values: tuple[Any, ...]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.values)

    def value(self, index: int) -> Any:
        return self.values[index]

    def location(self, index: int) -> SourceLocation:
        return SourceLocation(self.file, self.lines[index])


@dataclass(frozen=True)
class RangeAxis:
    """Whole numbers from start to stop, without the stop, as in Python."""

    field: str
    numbers: range
    written_at: SourceLocation

    def __len__(self) -> int:
        return len(self.numbers)

    def value(self, index: int) -> Any:
        return check_value(self.field, self.numbers[index])

    def location(self, index: int) -> SourceLocation:
        return self.written_at


@dataclass(frozen=True)
class FileAxis:
    """One value a line of another file; each value is checked when its row is read."""

    field: str
    file: str
    table: LineTable

    def __len__(self) -> int:
        return len(self.table)

    def value(self, index: int) -> Any:
        text = self.table[index]
        with at(self.location(index)):
            if FIELDS[self.field].value_type == "text":
                check_list_line(text, None if index else is_column)
            return parse_cell(self.field, text)

    def location(self, index: int) -> SourceLocation:
        return SourceLocation(self.file, self.table.line_number(index))


@dataclass(frozen=True)
class GuidanceAxis:
    """Guidance fields that change together, already checked.

    A field that one mapping leaves out has its default in the rows of that mapping.
    """

    items: tuple[Mapping[str, Given], ...]
    locations: tuple[SourceLocation, ...]

    def __len__(self) -> int:
        return len(self.items)

    def value(self, index: int) -> dict[str, Any]:
        return {name: given.value for name, given in self.items[index].items()}

    def location(self, index: int) -> SourceLocation:
        return self.locations[index]

    def location_of(self, index: int, field: str) -> SourceLocation | None:
        given = self.items[index].get(field)
        return given.location if given else None


@dataclass(frozen=True)
class Grid:
    """All clips that the axes make together, in the order of `combination`.

    Args:
        location: line of the axes block, for an error that no axis caused.
    """

    axes: Mapping[str, Axis]
    combination: Combination
    location: SourceLocation

    def rows(self, wanted: Wanted) -> Iterator[NumberedRow]:
        for index in range(self.combination.length):
            if not wanted[index]:
                continue
            positions = self.combination.positions(index)
            values = {name: self.axes[name].value(position) for name, position in positions.items()}
            values |= values.pop(GUIDANCE, {})
            yield index, Row(values, self.location, partial(self._location_of, positions))

    def _location_of(self, positions: Mapping[str, int], field: str) -> SourceLocation | None:
        if field in positions:
            return self.axes[field].location(positions[field])
        guidance = self.axes.get(GUIDANCE)
        if not isinstance(guidance, GuidanceAxis):
            return None
        return guidance.location_of(positions[GUIDANCE], field)


def make_range(field: str, bounds: list[int]) -> range:
    """Return `[start, stop]` or `[start, stop, step]` as whole numbers, without the stop.

    Raises:
        RowValueError: the field takes text, or the range holds no number or too many.
    """
    if FIELDS[field].value_type in TEXT_TYPES:
        raise RowValueError(f"{field} is text; a range is for fields that are numbers")
    if len(bounds) not in (2, 3):
        raise RowValueError(
            f"range must be [start, stop] or [start, stop, step], not {len(bounds)} numbers"
        )
    start, stop, step = (*bounds, 1)[:3]
    if step == 0:
        raise RowValueError("range must have a step other than 0")
    num_values = -((start - stop) // step)  # rounded up; len(range) overflows for huge numbers
    if num_values <= 0:
        raise RowValueError(f"range {shown(bounds)} holds no value; the stop is left out")
    if num_values > MAX_GRID_CLIPS:
        raise RowValueError(f"range {shown(bounds)} holds more than {MAX_GRID_CLIPS:,} values")
    return range(start, stop, step)
