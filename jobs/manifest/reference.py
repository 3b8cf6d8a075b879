"""The reference of a manifest's fields: the docs' table, the JSON Schema and the command's help.

`python -m jobs.manifest.reference` writes the first two into docs/reference. All follow from
`jobs.manifest.fields`; the descriptions are the `Args` of the dataclasses that hold the values.
"""

import inspect
import json
import re
import textwrap
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from jobs.manifest.field_values import MAX_NAME_CHARACTERS, NAME_PATTERN
from jobs.manifest.fields import (
    FIELDS,
    FILE_TYPES,
    GUIDANCE,
    GUIDANCE_FIELDS,
    PARALLEL,
    PARALLEL_FIELDS,
    TEXT_TYPES,
    WORDS,
    FieldType,
    RowField,
)
from jobs.manifest.rows import FIXED_DEFAULTS
from jobs.manifest.tables.meta import META, PREFIX
from jobs.text import unknown
from pipelines.catalog.files.sources import model_paths
from pipelines.catalog.model_yaml import load_model_config
from pipelines.clip_inputs import MAX_REFERENCES
from pipelines.parallel_config import ParallelConfig

SCHEMA_FILE = "manifest.schema.json"
PAGE_FILE = "manifest.md"
NOTE = "note"  # a value of `meta`
_TABLE = re.compile(r"(<!-- (?:fields|tokens): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n     +.*)*)", re.MULTILINE)
_JSON_TYPES: dict[FieldType, str] = {
    "text": "string",
    "whole number": "integer",
    "number": "number",
    "yes/no": "boolean",
    "LoRAs": "string",
    **dict.fromkeys(FILE_TYPES.values(), "string"),
}


def describe(field: RowField) -> str:
    """Return the entry of a field under `Args` in the docstring of its dataclass."""
    found = meanings(field.owner)
    if field.name not in found:
        raise LookupError(unknown("entry under Args", field.name, found))
    return found[field.name]


def meanings(owner: type) -> dict[str, str]:
    """Return the entries under `Args` in the docstring of a dataclass, by field."""
    _, _, entries = (inspect.getdoc(owner) or "").partition("Args:\n")
    entries = entries.partition("\n\n")[0]
    return {
        name: " ".join(text.split())
        for names, text in _ENTRY.findall(entries)
        for name in names.split(", ")
    }


def fields_table(section: str) -> str:
    """Return a Markdown table of the fields of `clip`, `guidance` or `parallel`."""
    head = ("| field | type | default | meaning |", "|---|---|---|---|")
    rows = (
        f"| `{field.name}` | {_type_text(field)} | {_default_text(field)} | {describe(field)} |"
        for field in _section(section)
    )
    return "\n".join((*head, *rows))


def limits_table() -> str:
    """Return a Markdown table of the tokens that each model reads of a text."""
    head = ("| model | tokens of a text |", "|---|---|")
    configs = (load_model_config(path) for _, path in sorted(model_paths().items()))
    rows = (f"| `{config.name}` | {config.max_sequence_length} |" for config in configs)
    return "\n".join((*head, *rows))


def fields_help() -> str:
    """Return the names of all fields as text for a terminal."""
    paragraphs = (
        ("a clip", "clip", ""),
        (GUIDANCE, GUIDANCE, "; in CSV each is a column"),
        (PARALLEL, PARALLEL, "; in CSV each is a column"),
    )
    return "\n".join(
        textwrap.fill(
            f"fields of {label}: {', '.join(one.name for one in _section(section))}{note}",
            width=98,
            subsequent_indent="  ",
        )
        for label, section, note in paragraphs
    )


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a YAML manifest; `$defs.clip` is that of a row of JSONL.

    The schema has the types and choices. The reader also checks ranges and combinations.
    """
    text = {"type": "string", "minLength": 1}
    axes = {name: _axis(name, field.value_type) for name, field in FIELDS.items() if name != "name"}
    for mapping in (GUIDANCE, PARALLEL):
        axes[mapping] = {"type": "array", "minItems": 1, "items": _reference(mapping)}
    fields = (*FIELDS, GUIDANCE, PARALLEL, META)
    defaults = {name: _reference(name) for name in fields if name != "name"}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nagfarm manifest",
        **_closed(
            {
                "name": text,
                "model": text,
                "output": text,
                "time_zone": text,
                "day_starts": {"type": "string", "pattern": "^([01]?[0-9]|2[0-3]):[0-5][0-9]$"},
                "defaults": _with_notes(defaults),
                "axes": _closed(axes),
                "combine": text,
                "clips": {"type": "array", "items": _reference("clip")},
            }
        ),
        "$defs": {
            "clip": _with_notes({name: _reference(name) for name in fields}),
            GUIDANCE: _closed({name: _reference(name) for name in GUIDANCE_FIELDS}),
            PARALLEL: _closed({name: _value(one) for name, one in PARALLEL_FIELDS.items()}),
            META: {"type": "object", "additionalProperties": _reference(NOTE)},
            NOTE: {"type": ["string", "number", "boolean", "null"]},
            **{name: _value(field) for name, field in FIELDS.items()},
        },
    }


def schema_text() -> str:
    """Return the JSON Schema as the text of its file."""
    return json.dumps(json_schema(), indent=2) + "\n"


def with_tables(page: str) -> str:
    """Return a Markdown page with its tables made anew."""

    def table(section: str) -> str:
        return limits_table() if section == "limits" else fields_table(section)

    return _TABLE.sub(lambda found: f"{found[1]}{table(found[2])}\n{found[3]}", page)


def _section(section: str) -> Iterable[RowField]:
    match section:
        case "guidance":
            return [FIELDS[name] for name in GUIDANCE_FIELDS]
        case "parallel":
            return PARALLEL_FIELDS.values()
        case _:
            return [field for name, field in FIELDS.items() if name not in GUIDANCE_FIELDS]


def _type_text(field: RowField) -> str:
    choices = ", ".join(f"`{choice}`" for choice in field.choices)
    words = "".join(f" or `{word}`" for word in WORDS.get(field.name, ()))
    return (choices or field.value_type) + words + (" or null" if field.is_nullable else "")


def _default_text(field: RowField) -> str:
    if FIXED_DEFAULTS.get(field.name) not in (None, ()):
        return f"`{json.dumps(FIXED_DEFAULTS[field.name])}`"
    if field.owner is ParallelConfig:
        (default,) = (one.default for one in fields(field.owner) if one.name == field.name)
        assert default is not MISSING
        return f"`{json.dumps(default)}`"
    special = {"prompt": "required", "model": "`--model`", "name": "`<manifest>-<row>`"}
    special |= {"loras": "the model's", "lora_weight": "each LoRA's"}
    if field.value_type in FILE_TYPES.values():
        return "none"
    return special.get(field.name, "the model's")


def _value(field: RowField) -> dict[str, Any]:
    json_type = _JSON_TYPES[field.value_type]
    schema: dict[str, Any] = {"type": [json_type, "null"] if field.is_nullable else json_type}
    if field.value_type == "LoRAs":
        weights = {"type": "object", "additionalProperties": {"type": ["number", "null"]}}
        words = {"type": "array", "items": {"type": "string"}}
        schema = {"anyOf": [schema | {"minLength": 1}, words, weights]}
    if field.value_type == "image files":
        words = {"type": "array", "items": {"type": "string"}, "maxItems": MAX_REFERENCES}
        schema = {"anyOf": [schema, words]}
    if field.choices:
        schema["enum"] = list(field.choices)
    if words := WORDS.get(field.name):
        schema = {"anyOf": [schema, {"enum": list(words)}]}
    if field.name == "name":
        schema |= {"pattern": f"^{NAME_PATTERN}$", "maxLength": MAX_NAME_CHARACTERS}
    return schema | {"description": describe(field)}


def _axis(name: str, value_type: FieldType) -> dict[str, Any]:
    """Return the schema of an axis: a list, a file and, for numbers, a range."""
    bounds = {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}
    options = [
        {"type": "array", "minItems": 1, "items": _reference(name)},
        _closed({"file": {"type": "string"}}) | {"required": ["file"]},
        _closed({"range": bounds}) | {"required": ["range"]},
    ]
    return {"anyOf": options[:2] if value_type in TEXT_TYPES else options}


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _with_notes(properties: dict[str, Any]) -> dict[str, Any]:
    pattern = f"^{re.escape(PREFIX)}"
    return _closed(properties) | {"patternProperties": {pattern: _reference(NOTE)}}


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def main() -> None:
    folder = Path("docs/reference")
    (folder / SCHEMA_FILE).write_text(schema_text(), encoding="utf-8")
    page = folder / PAGE_FILE
    page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
