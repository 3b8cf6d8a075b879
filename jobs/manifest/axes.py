"""The axes of a YAML manifest, and the grid of clips that they span.

A grid is never laid out: row `index` is found by arithmetic, so that ten million clips take no more memory than the
values of their axes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from jobs.manifest.combine import Combination
from jobs.manifest.lines import LineTable, Place
from jobs.manifest.rows import (
    FIELD_TYPES,
    GUIDANCE,
    Given,
    Row,
    RowValueError,
    check_value,
    parse_cell,
)
from jobs.text import shown

MAX_GRID_CLIPS = 10_000_000


class Axis(Protocol):
    """The values of one field, or of the guidance fields together, with the line of each."""

    def __len__(self) -> int: ...

    def value(self, index: int) -> Any: ...

    def place(self, index: int) -> Place: ...


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

    def place(self, index: int) -> Place:
        return Place(self.file, self.lines[index])


@dataclass(frozen=True)
class RangeAxis:
    """Whole numbers from start to stop, the stop left out, as Python counts."""

    field: str
    numbers: range
    written_at: Place

    def __len__(self) -> int:
        return len(self.numbers)

    def value(self, index: int) -> Any:
        return check_value(self.field, self.numbers[index])

    def place(self, index: int) -> Place:
        return self.written_at


@dataclass(frozen=True)
class FileAxis:
    """One value a line of another file; each is checked when its row comes."""

    field: str
    file: str
    table: LineTable

    def __len__(self) -> int:
        return len(self.table)

    def value(self, index: int) -> Any:
        try:
            return parse_cell(self.field, self.table[index])
        except RowValueError as error:
            raise self.place(index).refuse(str(error)) from error

    def place(self, index: int) -> Place:
        return Place(self.file, self.table.line_number(index))


@dataclass(frozen=True)
class GuidanceAxis:
    """Guidance fields that change together, already checked. What one mapping leaves out has its default there."""

    items: tuple[Mapping[str, Given], ...]
    written_at: tuple[Place, ...]

    def __len__(self) -> int:
        return len(self.items)

    def value(self, index: int) -> dict[str, Any]:
        return {name: given.value for name, given in self.items[index].items()}

    def place(self, index: int) -> Place:
        return self.written_at[index]

    def place_of(self, index: int, field: str) -> Place | None:
        given = self.items[index].get(field)
        return given.place if given else None


@dataclass(frozen=True)
class Grid:
    """All clips that the axes make together, in the order of `combination`.

    Args:
        place: of the axes block, for what no axis is to blame for.
    """

    axes: Mapping[str, Axis]
    combination: Combination
    place: Place

    def rows(self) -> Iterator[Row]:
        for index in range(self.combination.length):
            positions = self.combination.positions(index)
            values = {name: self.axes[name].value(position) for name, position in positions.items()}
            values |= values.pop(GUIDANCE, {})
            yield Row(values, self.place, partial(self._place_of, positions))

    def _place_of(self, positions: Mapping[str, int], field: str) -> Place | None:
        if field in positions:
            return self.axes[field].place(positions[field])
        guidance = self.axes.get(GUIDANCE)
        return (
            guidance.place_of(positions[GUIDANCE], field)
            if isinstance(guidance, GuidanceAxis)
            else None
        )


def make_range(field: str, bounds: list[int]) -> range:
    """`[start, stop]` or `[start, stop, step]` as whole numbers, the stop left out.

    Raises:
        RowValueError: the field takes no numbers, or there are none or too many in it.
    """
    if FIELD_TYPES[field] == "text":
        raise RowValueError(f"{field} is text; a range is for fields that are numbers")
    if len(bounds) not in (2, 3):
        raise RowValueError(
            f"range must be [start, stop] or [start, stop, step], not {len(bounds)} numbers"
        )
    start, stop, step = (*bounds, 1)[:3]
    if step == 0:
        raise RowValueError("range must have a step other than 0")
    num_values = -(
        (start - stop) // step
    )  # rounded up; len(range) overflows where the numbers are huge
    if num_values <= 0:
        raise RowValueError(f"range {shown(bounds)} holds no value; the stop is left out")
    if num_values > MAX_GRID_CLIPS:
        raise RowValueError(f"range {shown(bounds)} holds more than {MAX_GRID_CLIPS:,} values")
    return range(start, stop, step)
