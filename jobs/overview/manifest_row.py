"""The row of a manifest that asks for a clip of an output again.

Decides which fields the row gives: all that decide the pixels, so that the clip keeps its id even
if the defaults of its model change, and no parameters of methods that the clip does not use.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_args

from jobs.manifest.field_values import MAX_NAME_CHARACTERS, NAME_PATTERN
from jobs.manifest.fields import FIELDS, PARALLEL, REQUEST_PARTS
from jobs.manifest.rows import FIXED_DEFAULTS
from jobs.manifest.tables.meta import META
from jobs.records.keys import input_key
from jobs.records.schema import ClipRecord
from nag.params import GuidanceParams
from pipelines.clip_inputs import InputFiles
from pipelines.lora_choice import NO_LORAS
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest

# Parts of a request that have an effect under some methods alone.
_METHODS_OF_PARTS = {"nag": ("nag", "cfg+nag"), "vsf": ("vsf",), "nasa": ("nasa",)}
_PLAIN_FIELDS = tuple(name for name, one in FIELDS.items() if one.owner is GenerationRequest)
assert {REQUEST_PARTS[part] for part in _METHODS_OF_PARTS} == set(get_args(GuidanceParams))


def manifest_row(record: ClipRecord) -> dict[str, Any]:
    """Return the row that asks for a committed clip again, as JSON values.

    The same model renders it as the same clip, with the same id. A name that no manifest may hold
    is left out, as a stranger may have written it.
    """
    return {
        **({"name": record.name} if is_name(record.name) else {}),
        **request_row(record.model.name, record.request, output_of(record)),
        **_parallel(record.parallel),
        **({META: dict(record.meta)} if record.meta else {}),
    }


def is_name(name: str) -> bool:
    """Return True for a name that a manifest may give to a clip."""
    return bool(re.fullmatch(NAME_PATTERN, name)) and len(name) <= MAX_NAME_CHARACTERS


def output_of(record: ClipRecord) -> str:
    """Return the URI of the output to which a clip was committed."""
    return record.uri.removesuffix(f"/{record.key}")


def request_row(model: str, request: GenerationRequest, output: str) -> dict[str, Any]:
    """Return the fields of a row that make a request, with its model.

    Args:
        model: name of the model.
        output: URI of the output that holds the images and videos of the clip.
    """
    row: dict[str, Any] = {"model": model}
    row |= {name: getattr(request, name) for name in _PLAIN_FIELDS if name not in ("loras", "text")}
    for part, owner in REQUEST_PARTS.items():
        if owner is InputFiles:
            continue
        if request.method in _METHODS_OF_PARTS.get(part, (request.method,)):
            value = getattr(request, part)
            row |= {one.name: getattr(value, one.name) for one in fields(owner)}
    if request.loras is not None:
        row["loras"] = {one.name: one.weight for one in request.loras} or NO_LORAS
    if request.text != FIXED_DEFAULTS["text"]:
        row["text"] = request.text
    return row | _inputs(request.inputs, output)


def row_line(row: Mapping[str, Any]) -> str:
    """Return a row as one line of a JSONL manifest, without its line end; all of it is ASCII."""
    return json.dumps(row, allow_nan=False)


def _inputs(inputs: InputFiles, output: str) -> dict[str, Any]:
    """Return the fields of the images and videos of a clip, as objects of an output."""
    if not (given := inputs.given()):
        return {}
    row: dict[str, Any] = {}
    for name, files in given.items():
        uris = [f"{output}/{input_key(file.sha256)}" for file in files]
        row[name] = uris if name == "reference_images" else uris[0]
    return row | {"fit": inputs.fit}


def _parallel(parallel: ParallelConfig) -> dict[str, Any]:
    """Return the group that rendered a clip; one device is left to the model's YAML."""
    if parallel.degree == 1:
        return {}
    given = {one.name: getattr(parallel, one.name) for one in fields(ParallelConfig)}
    return {PARALLEL: {name: value for name, value in given.items() if value not in (1, False)}}
