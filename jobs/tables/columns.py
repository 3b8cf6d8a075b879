"""The columns of both tables: their names, their types, and where their values come from.

Decides names. The columns of a record follow from the fields of `ClipRecord`, so that a new field
is a new column: a nested field gets the name of its last part, `model.source` that of both. Types
are annotations of Python; `arrow` turns them into those of a file. Loads without pyarrow.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, get_args, get_origin

from jobs.errors import FailureClass
from jobs.overview.clips import ClipState
from jobs.records.schema import ClipRecord
from jobs.records.strict_json import field_types
from jobs.types import Stage

TIMED_STAGES: tuple[str, ...] = tuple(one for one in get_args(Stage) if one != "lookup")
# The stages have a table of their own, and the MP4 has the request's sizes. A second stage is the
# same in all clips of a model, whose name and revision have columns.
LEFT_OUT = (
    "timings", "request.shape", "request.fps", "clip_id", "name", "run_id", "model.second_stage",
)  # fmt: skip
RENAMED = {
    "model.name": "model",
    "request.loras": "chosen_loras",
    "request.text": "long_text",
    "request.audio": "wants_audio",
    "tokens.prompt.count": "prompt_tokens",
    "tokens.prompt.digest": "prompt_digest",
    "tokens.negative_prompt.count": "negative_prompt_tokens",
    "tokens.negative_prompt.digest": "negative_prompt_digest",
    "tokens.unconditional.count": "unconditional_tokens",
    "tokens.unconditional.digest": "unconditional_digest",
    "nag_coverage.guided": "nag_guided",
    "nag_coverage.total": "nag_total",
}
INPUTS = "request.inputs."  # `image` is the name of the file, `image_sha256` its digest
PREFIXED = ("model", "audio")  # their fields have common names, such as `source`


@dataclass(frozen=True)
class Time:
    """The type of a time in UTC; as an annotation of a text or of seconds since 1970."""


@dataclass(frozen=True)
class FailedTry:
    """A failed attempt at a clip, as the table of clips lists it."""

    run_id: str
    attempt: int
    failure_class: FailureClass
    may_pass_on_retry: bool
    error_type: str
    message: str
    traceback: str
    worker: str
    failed_at: Time


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its name.
        annotation: type of its values; each may be missing.
        path: field of the record that it holds, such as `request.sampling.seed`.
        meaning: its content, for a column that holds more than a field of the record.
    """

    name: str
    annotation: Any
    path: str = ""
    meaning: str = ""

    @property
    def type_text(self) -> str:
        """The type in words, for the manual."""
        origin, arguments = get_origin(self.annotation), get_args(self.annotation)
        if origin is tuple:
            return "list of texts" if arguments[0] is str else "list"
        words = {Literal: "word", Mapping: "mapping"}
        words |= {str: "text", int: "whole number", float: "number", bool: "yes/no", Time: "time"}
        return words[origin or self.annotation]


def record_columns() -> Iterator[Column]:
    """Yield a column for each field of a committed clip's record, in the record's order."""
    yield from _columns_of(ClipRecord, "")


def _columns_of(cls: type[Any], parent: str) -> Iterator[Column]:
    types = field_types(cls)
    for one in fields(cls):
        path, annotation = f"{parent}{one.name}", without_none(types[one.name])
        if path in LEFT_OUT:
            continue
        if is_dataclass(annotation) and isinstance(annotation, type):
            yield from _columns_of(annotation, f"{path}.")
            continue
        is_time = annotation is str and one.name.endswith("_at")
        yield Column(_name_of(path), Time if is_time else annotation, path)


def _name_of(path: str) -> str:
    if path.startswith(INPUTS):
        return path.removeprefix(INPUTS).removesuffix(".name").replace(".", "_")
    first, _, _ = path.partition(".")
    last = path.rpartition(".")[2]
    return RENAMED.get(path) or (f"{first}_{last}" if first in PREFIXED else last)


def without_none(annotation: Any) -> Any:
    """Return `X` for `X | None`, and any other annotation unchanged."""
    if get_origin(annotation) in (Literal, tuple, Mapping) or not get_args(annotation):
        return annotation
    left = [one for one in get_args(annotation) if one is not type(None)]
    return left[0] if len(left) == 1 else annotation


_STATES = (
    "`committed`; `damaged`: committed, and the MP4 is gone; `quarantined`; `failed`: with failed "
    "attempts alone"
)
CLIP_COLUMNS: tuple[Column, ...] = (
    Column("clip_id", str, "clip_id"),
    Column("state", ClipState, meaning=_STATES),
    Column("name", str, meaning="name in the manifest"),
    Column("names", tuple[str, ...], meaning="further names under which manifests asked for it"),
    Column(
        "run_id", str, meaning="the run that committed it, or else quarantined it or failed last"
    ),
    *record_columns(),
    *(
        Column(f"{stage}_s", float, meaning=f"seconds in the stage `{stage}`, its steps together")
        for stage in TIMED_STAGES
    ),
    Column(
        "scores",
        Mapping[str, float],
        meaning="newest figures of `nagfarm score` by measure and name, such as `clip.prompt`",
    ),
    Column("num_failures", int, meaning="failed attempts of all runs"),
    Column("failure_class", FailureClass, meaning="class of the last failure"),
    Column("error_type", str, meaning="class name of its error"),
    Column("message", str, meaning="text of its error"),
    Column("failed_at", Time, meaning="time of the last failed attempt"),
    Column("quarantined_at", Time, meaning="time of the quarantine"),
    Column("quarantine_reason", str, meaning="reason why no run tries it again"),
    Column("failures", tuple[FailedTry, ...], meaning="the failed attempts, oldest first"),
)
STAGE_COLUMNS: tuple[Column, ...] = (
    Column("clip_id", str, meaning="id of the clip"),
    Column("run_id", str, meaning="the run of the attempt"),
    Column("attempt", int, meaning="number of the attempt, from 1"),
    Column("is_committed", bool, meaning="true if the attempt committed the clip"),
    Column("stage", Stage, meaning="the stage, see `StageTiming`"),
    Column("step", int, meaning="the denoise step, from 0; empty for other stages"),
    Column("started_at", Time, meaning="begin, by the worker's clock"),
    Column("duration_s", float, meaning="seconds; stages of different clips may overlap"),
)
