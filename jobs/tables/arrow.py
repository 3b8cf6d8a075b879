"""The types of the columns in a file, and batches of rows. The only code that knows pyarrow.

Enumerations become dictionaries of text, mappings become maps, and lists of values of several
fields become lists of structs. Times have microseconds and the zone UTC. pyarrow takes a quarter of
a second to import, and 50 MB, so that it is imported when a table is written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from jobs.escaping import csv_text
from jobs.records.schema import SCHEMA_VERSION
from jobs.records.strict_json import field_types
from jobs.tables.columns import Column, Time, without_none

if TYPE_CHECKING:
    import pyarrow as pa

NESTED = (Mapping, tuple)


@cache
def schema_of(columns: tuple[Column, ...], *, is_flat: bool = False) -> "pa.Schema":
    """Return the schema of a table.

    Args:
        is_flat: True for a file whose cells are texts, in which a nested value is JSON.
    """
    import pyarrow as pa

    types = {
        one.name: pa.string() if is_flat and not is_number(one) else arrow_type(one.annotation)
        for one in columns
    }
    metadata = {"nagfarm.schema_version": str(SCHEMA_VERSION)}
    return pa.schema([pa.field(name, kind) for name, kind in types.items()], metadata)


def is_number(column: Column) -> bool:
    """Return True for a number, a time or a boolean."""
    return column.annotation in (int, float, bool, Time)


def is_nested(column: Column) -> bool:
    return get_origin(column.annotation) in NESTED


def arrow_type(annotation: Any) -> "pa.DataType":
    """Return the type of a column of a file."""
    import pyarrow as pa

    origin, arguments = get_origin(annotation), get_args(annotation)
    plain: dict[Any, pa.DataType] = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
        Time: pa.timestamp("us", "UTC"),
    }
    if annotation in plain:
        return plain[annotation]
    if origin is Literal:
        return pa.dictionary(pa.int32(), pa.string())
    if origin is Mapping:
        return pa.map_(pa.string(), arrow_type(arguments[1]))
    if origin is tuple:
        return pa.list_(arrow_type(arguments[0]))
    types = field_types(annotation)  # the rest are dataclasses
    return pa.struct(
        [(one.name, arrow_type(without_none(types[one.name]))) for one in fields(annotation)]
    )


def batch_of(
    columns: tuple[Column, ...], rows: Sequence[Sequence[Any]], *, is_flat: bool = False
) -> "pa.RecordBatch":
    """Return rows as a batch of a table."""
    import pyarrow as pa

    schema = schema_of(columns, is_flat=is_flat)
    arrays: list[pa.Array] = []
    for index, column in enumerate(columns):
        values = [row[index] for row in rows]
        if is_flat and is_nested(column):
            values = [None if value is None else _as_json(column, value) for value in values]
        elif is_flat and not is_number(column):
            values = [None if value is None else csv_text(value) for value in values]
        arrays.append(pa.array(values, schema.field(index).type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _as_json(column: Column, value: list[Any]) -> str:
    """Return a nested value as JSON."""
    is_map = get_origin(column.annotation) is Mapping
    return json.dumps(dict(value) if is_map else value, ensure_ascii=False, default=_time_text)


def _time_text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
