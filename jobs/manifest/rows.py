"""What one row of a manifest may say: its fields, their types, and the request that they make.

Types are strict: nothing is rounded, cut or guessed. Only CSV, which has no types, has its numbers read from text.
Ranges are checked by the values themselves (`pipelines.request`, `nag.params`).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal, get_args

from jobs.manifest.lines import Place
from jobs.text import shown, unknown
from nag.params import NagParams, NasaParams, VsfParams
from pipelines.catalog.model_config import ModelConfig
from pipelines.request import (
    CFG_METHODS,
    GenerationRequest,
    GuidanceMethod,
    SamplingParams,
    VideoShape,
)

FieldType = Literal["text", "whole number", "number", "yes/no"]

FIELD_TYPES: dict[str, FieldType] = {
    "prompt": "text",
    "negative_prompt": "text",
    "model": "text",
    "name": "text",
    "seed": "whole number",
    "num_frames": "whole number",
    "height": "whole number",
    "width": "whole number",
    "fps": "number",
    "num_inference_steps": "whole number",
    "guidance_scale": "number",
    "flow_shift": "number",
    "nag_scale": "number",
    "nag_tau": "number",
    "nag_alpha": "number",
    "nag_start": "number",
    "nag_end": "number",
    "method": "text",
    "nag_norm": "text",
    "vsf_scale": "number",
    "vsf_bias": "number",
    "nasa_scale": "number",
}
CHOICES: dict[str, tuple[str, ...]] = {"method": get_args(GuidanceMethod), "nag_norm": ("l1", "l2")}
GUIDANCE = "guidance"  # what YAML and JSONL call a mapping of the fields below
GUIDANCE_FIELDS = tuple(
    name
    for name in FIELD_TYPES
    if name in ("method", "guidance_scale") or name.startswith(("nag_", "vsf_", "nasa_"))
)
PARALLEL = "parallel"  # what YAML and JSONL call the mapping of the fields below; it is one value, a ParallelConfig
PARALLEL_FIELDS: dict[str, FieldType] = {
    "ulysses": "whole number",
    "ring": "whole number",
    "across_hosts": "yes/no",
}
MAX_NAME_CHARACTERS = 128
_MAX_INTEGER = 2**63 - 1
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_INTEGER_CELL = re.compile(r"[+-]?[0-9]{1,19}")
_NUMBER_CELL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")

_shape = lru_cache(maxsize=1024)(VideoShape)  # a million rows share a handful of these
_NAG_FIELDS = tuple(field.name for field in fields(NagParams))
_nag = lru_cache(maxsize=1024)(NagParams)
_vsf = lru_cache(maxsize=1024)(VsfParams)
_nasa = lru_cache(maxsize=1024)(NasaParams)


class RowValueError(ValueError):
    """A value that a row may not have. Whoever knows file and line turns it into a ManifestError."""


@dataclass(frozen=True, slots=True)
class Unquoted:
    """A YAML word without quotes that YAML 1.1 does not read as text or as a plain number."""

    text: str
    reading: str  # such as "a yes/no value"


@dataclass(frozen=True)
class Given:
    """A value and where it was given."""

    value: Any
    place: Place


@dataclass(frozen=True, slots=True)
class Row:
    """What one row says, checked field by field; `find_place` knows better than `place` where one field was given."""

    values: dict[str, Any]
    place: Place
    find_place: Callable[[str], Place | None] = field(default=lambda _field: None)


def check_field(name: str) -> None:
    """Refuses a field that rows do not have."""
    if name in PARALLEL_FIELDS:
        raise RowValueError(f"{name} is a field of {PARALLEL}: write {PARALLEL}: {{{name}: ...}}")
    if name not in FIELD_TYPES:
        raise RowValueError(unknown("field", name, (*FIELD_TYPES, GUIDANCE, PARALLEL)))


def check_value(name: str, value: object) -> Any:
    """The value of field `name` in its type, where it has it already: an int may stand for a float, and null is for
    `flow_shift` alone, where it is what the scheduler was saved with.
    """
    expected = _TYPES[name]
    if expected == "text" and isinstance(value, str):
        if name in CHOICES and value not in CHOICES[name]:
            raise RowValueError(unknown(name, value, CHOICES[name]))
        return check_name(value) if name == "name" else value
    if expected == "whole number" and type(value) is int:
        return _bounded(name, value)
    if expected == "number" and type(value) in (int, float):
        assert isinstance(value, int | float)
        number = float(_bounded(name, value)) if isinstance(value, int) else value
        if math.isfinite(number):
            return number
    if expected == "yes/no":
        word = (
            value.text
            if isinstance(value, Unquoted)
            else str(value).lower()
            if isinstance(value, bool)
            else None
        )
        if word in _YES_NO:
            return _YES_NO[word]
    if name == "flow_shift" and value is None:
        return None
    raise RowValueError(f"{name} must be {_ARTICLE[expected]}, not {_described(value, expected)}")


def parse_cell(name: str, text: str) -> Any:
    """The value of field `name` from text without types, as CSV and files of values have it."""
    expected = _TYPES[name]
    word = text.strip()
    if expected == "whole number" and _INTEGER_CELL.fullmatch(word):
        return check_value(name, int(word))
    if expected == "number" and _NUMBER_CELL.fullmatch(word):
        return check_value(name, float(word))
    if expected == "yes/no" and word in _YES_NO:
        return _YES_NO[word]
    if expected == "text":
        return check_value(name, text)
    raise RowValueError(f"{name} must be {_ARTICLE[expected]}, not {shown(text)}")


def check_name(name: str, max_characters: int = MAX_NAME_CHARACTERS) -> str:
    """Refuses a name that could not be a file's, a URL's or a label's."""
    if not _NAME.fullmatch(name) or len(name) > max_characters:
        raise RowValueError(
            f"name must be 1 to {max_characters} letters (A-Z, a-z), digits, '.', '_' or '-', "
            f"not beginning with '.', not {shown(name)}"
        )
    return name


def model_defaults(config: ModelConfig) -> dict[str, Any]:
    """What a model's YAML says about fields that no one else gives."""
    sampling = config.sampling
    return {
        "negative_prompt": "",
        "seed": 0,
        "num_frames": sampling.num_frames,
        "height": sampling.height,
        "width": sampling.width,
        "fps": sampling.fps,
        "num_inference_steps": sampling.num_inference_steps,
        "guidance_scale": sampling.guidance_scale,
        "flow_shift": config.scheduler.flow_shift,
        "method": config.method,
        **asdict(config.nag),
        **asdict(config.vsf),
        **asdict(config.nasa),
    }


def make_request(given: Mapping[str, Any], fallback: Mapping[str, Any]) -> GenerationRequest:
    """The request of a row.

    Args:
        given: what the row and the manifest say.
        fallback: what the model says (`model_defaults`). Its `guidance_scale` is for the methods that use one; a given
            one is taken as it is, so that the request refuses it where it would have no effect.

    Raises:
        RequestError, NagParameterError: a value is outside its range.
        RowValueError: there is no prompt.
    """
    if "prompt" not in given:
        raise RowValueError("prompt is missing")
    values = {**fallback, **given}
    if "guidance_scale" not in given and values["method"] not in CFG_METHODS:
        values["guidance_scale"] = 1.0
    return GenerationRequest(
        prompt=values["prompt"],
        negative_prompt=values["negative_prompt"],
        shape=_shape(values["num_frames"], values["height"], values["width"]),
        fps=values["fps"],
        sampling=SamplingParams(
            num_inference_steps=values["num_inference_steps"],
            guidance_scale=values["guidance_scale"],
            flow_shift=values["flow_shift"],
            seed=values["seed"],
        ),
        nag=_nag(*(values[name] for name in _NAG_FIELDS)),
        method=values["method"],
        vsf=_vsf(values["vsf_scale"], values["vsf_bias"]),
        nasa=_nasa(values["nasa_scale"]),
    )


_ARTICLE: dict[FieldType, str] = {
    "text": "text",
    "whole number": "a whole number",
    "number": "a finite number",
    "yes/no": "true or false",
}
_REMEDY: dict[FieldType, str] = {"text": 'put it in quotes (")', "yes/no": "write true or false"}
_TYPES = FIELD_TYPES | PARALLEL_FIELDS
_YES_NO = {"true": True, "false": False}


def _bounded(name: str, value: int) -> int:
    if abs(value) > _MAX_INTEGER:
        raise RowValueError(
            f"{name} must be at most {_MAX_INTEGER} in size, not a number of {value.bit_length()} bits"
        )
    return value


def _described(value: object, expected: FieldType) -> str:
    """What came, and the remedy where it is plain."""
    quote_it = _REMEDY.get(expected, "write a plain decimal number")
    match value:
        case Unquoted(text, reading):
            came = f"{shown(text)[1:-1]}, which YAML reads as {reading}: {quote_it}"
        case None:
            came = "nothing; leave the field out for its default"
        case bool():
            came = f"the yes/no value {str(value).lower()}: {quote_it}"
        case int() | float():
            came = f"the number {shown(value)}" + (f": {quote_it}" if expected == "text" else "")
        case str() if expected == "number" and _NUMBER_CELL.fullmatch(value):
            came = f"the text {shown(value)}: write it without quotes and without an exponent"  # YAML's 1e3 is text
        case str():
            is_quoted = value in _YES_NO if expected == "yes/no" else _INTEGER_CELL.fullmatch(value)
            came = f"the text {shown(value)}" + (": remove the quotes" if is_quoted else "")
        case list():
            came = "a list; several values of one field go under axes"
        case _:
            came = "a mapping"
    return came
