"""On how many devices a row asks its clip to be rendered: the mapping `parallel`, or in CSV the columns of its fields.

`parallel: {ulysses: 2, ring: 2}` is one value: it replaces a default's or the model's as a whole, and what it
leaves out is 1. So `parallel: {}` asks for one device. Whether the model and the size allow it is decided in
`pipelines.context_parallel.divisibility`.
"""

from collections.abc import Mapping
from typing import Any

from jobs.manifest.rows import PARALLEL, PARALLEL_FIELDS, RowValueError, check_value
from jobs.text import shown, unknown
from pipelines.errors import ModelConfigError
from pipelines.parallel_config import ParallelConfig


def check_parallel_field(name: str) -> None:
    """Refuses a key of `parallel` that is none of its fields."""
    if name not in PARALLEL_FIELDS:
        raise RowValueError(unknown(f"field of {PARALLEL}", name, PARALLEL_FIELDS))


def make_parallel(values: Mapping[str, Any]) -> ParallelConfig:
    """Of fields whose types are checked.

    Raises:
        RowValueError: a value is outside its range, or they do not fit together.
    """
    try:
        return ParallelConfig(**values)
    except ModelConfigError as error:
        raise RowValueError(str(error)) from error


def read_parallel(document: object) -> ParallelConfig:
    """Of the JSON value of `parallel`."""
    if not isinstance(document, dict):
        raise RowValueError(
            f'{PARALLEL} must be an object, such as {{"ulysses": 2}}, not {shown(document)}'
        )
    for name in document:
        check_parallel_field(name)
    return make_parallel({name: check_value(name, value) for name, value in document.items()})


def with_parallel(values: dict[str, Any]) -> dict[str, Any]:
    """The cells of a CSV row with those of its `parallel` made into one; a row that has none of them says nothing."""
    given = {name: values[name] for name in PARALLEL_FIELDS if name in values}
    if not given:
        return values
    others = {name: value for name, value in values.items() if name not in given}
    return others | {PARALLEL: make_parallel(given)}
