"""The rows of both tables: one for each clip, and one for each stage of each attempt.

Decides how a value of a record becomes one of a table: times become moments in UTC, half
surrogates, which UTF-8 lacks, become escapes, and a number beyond 64 bits is refused. The records
of an output come from strangers. Loads without pyarrow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Literal, get_args, get_origin

from jobs.errors import RecordError
from jobs.overview.clips import OutputClip
from jobs.records.schema import ClipRecord, FailureRecord
from jobs.records.strict_json import field_types
from jobs.tables.columns import (
    CLIP_COLUMNS,
    TIMED_STAGES,
    Time,
    record_columns,
    without_none,
)
from jobs.types import StageTiming

MAX_INTEGER = 2**63 - 1
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Row = Sequence[Any]


def clip_row(clip: OutputClip) -> list[Any]:
    """Return the row of a clip, a value for each of `CLIP_COLUMNS`.

    Raises:
        RecordError: a number or a time is beyond what a table can hold.
    """
    failures, record, quarantine = clip.failures, clip.record, clip.quarantine
    last = failures[-1] if failures else quarantine
    own = record or quarantine or last
    values = [
        clip.clip_id,
        clip.state,
        clip.name,
        clip.names[1:],
        own and own.run_id,
        *(read(clip) for read in _readers()),
        *_stage_values(() if record is None else record.timings),
        clip.figures or None,
        len(failures),
        last and last.failure_class,
        last and last.error_type,
        last and last.message,
        failures[-1].failed_at if failures else None,
        quarantine and quarantine.quarantined_at,
        quarantine and quarantine.reason,
        failures,
    ]
    return _converted(values)


def stage_rows(clip: OutputClip) -> Iterator[list[Any]]:
    """Yield the rows of a clip's stages, those of failed attempts first.

    Raises:
        RecordError: as `clip_row`.
    """
    for failure in clip.failures:
        for timing in failure.timings:
            yield _stage_row(failure, timing, is_committed=False)
    if clip.record is not None:
        for timing in clip.record.timings:
            yield _stage_row(clip.record, timing, is_committed=True)


def _stage_row(
    attempt: ClipRecord | FailureRecord, timing: StageTiming, *, is_committed: bool
) -> list[Any]:
    return [
        attempt.clip_id,
        attempt.run_id,
        _whole(attempt.attempt),
        is_committed,
        timing.stage,
        None if timing.step is None else _whole(timing.step),
        _moment(timing.started_at),
        timing.duration_s,
    ]


def _stage_values(timings: Sequence[StageTiming]) -> list[float | None]:
    totals: dict[str, float] = {}
    for timing in timings:
        totals[timing.stage] = totals.get(timing.stage, 0.0) + timing.duration_s
    return [totals.get(stage) for stage in TIMED_STAGES]


@cache
def _readers() -> tuple[Callable[[OutputClip], Any], ...]:
    return tuple(_reader(column.path) for column in record_columns())


def _reader(path: str) -> Callable[[OutputClip], Any]:
    """Return the function that finds a field of a record.

    The records of failures have the request, too, and the name of the model.
    """
    if path == "model.name":
        return lambda clip: clip.model_name or None
    parts = path.split(".")
    if parts[0] != "request":
        parts.insert(0, "record")

    def read(clip: OutputClip) -> Any:
        value: Any = clip
        for part in parts:
            if value is None:
                return None
            value = getattr(value, part)
        return value

    return read


@cache
def _clip_converters() -> tuple[Callable[[Any], Any], ...]:
    return tuple(_converter(column.annotation) for column in CLIP_COLUMNS)


def _converted(values: list[Any]) -> list[Any]:
    return [
        None if value is None else convert(value)
        for value, convert in zip(values, _clip_converters(), strict=True)
    ]


def _converter(annotation: Any) -> Callable[[Any], Any]:
    """Return the function that turns a value of a record into one of a table."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    plain: dict[Any, Callable[[Any], Any]] = {Time: _moment, int: _whole, str: _text}
    if annotation in plain:
        return plain[annotation]
    if origin is Mapping:
        convert_entry = _converter(arguments[1])
        return lambda value: [(_text(key), convert_entry(one)) for key, one in value.items()]
    if origin is tuple:
        convert = _converter(arguments[0])
        return lambda value: [convert(entry) for entry in value]
    if is_dataclass(annotation) and isinstance(annotation, type):
        return _struct_converter(annotation)
    assert annotation in (float, bool) or origin is Literal, annotation
    return lambda value: value


def _struct_converter(cls: type[Any]) -> Callable[[Any], dict[str, Any]]:
    types = field_types(cls)
    converters = {one.name: _converter(without_none(types[one.name])) for one in fields(cls)}

    def convert(value: Any) -> dict[str, Any]:
        found = ((name, getattr(value, name), one) for name, one in converters.items())
        return {name: None if given is None else one(given) for name, given, one in found}

    return convert


def _whole(value: int) -> int:
    if abs(value) > MAX_INTEGER:
        raise RecordError(f"expected a whole number of at most 64 bits, got {value:.3e}")
    return value


def _moment(value: str | float) -> datetime:
    """Return a time of a record as a moment: a text in ISO 8601, or seconds since 1970."""
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return EPOCH + timedelta(seconds=value)
    except (OverflowError, ValueError) as error:
        raise RecordError(f"expected a time of the years 1 to 9999, got {value}") from error


def _text(value: str) -> str:
    return value if value.isascii() else value.encode(errors="backslashreplace").decode()
