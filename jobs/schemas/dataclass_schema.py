"""The JSON Schema of a dataclass, from its annotations and the `Args` of its docstring.

Decides which JSON Schema a type of Python has. The classes themselves also check ranges and
combinations, which a schema leaves out.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jobs.manifest.reference import meanings
from jobs.records.keys import CLIP_ID, RUN_ID, SHA256
from jobs.records.schema import SCHEMA_VERSION
from jobs.records.strict_json import field_types

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PATTERNS = {"clip_id": CLIP_ID.pattern, "run_id": RUN_ID.pattern, "sha256": SHA256.pattern}
PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    Any: {},
    object: {},
}
Schema = dict[str, Any]


def schema_of(cls: type[Any], title: str, *, is_written_by_people: bool) -> Schema:
    """Return the schema of a document.

    Args:
        is_written_by_people: True if a field with a default may be left out, as in a YAML; a
            program writes every field.
    """
    classes: dict[str, Schema] = {}
    top = _object(cls, classes, is_written_by_people)
    return {"$schema": DIALECT, "title": title, **top, "$defs": dict(sorted(classes.items()))}


def _object(cls: type[Any], classes: dict[str, Schema], is_written: bool) -> Schema:
    """Return the schema of a dataclass; add those of the dataclasses in it."""
    types, about = field_types(cls), dict[str, str]()
    for base in reversed(cls.__mro__[:-1]):
        about |= meanings(base)
    properties: dict[str, Schema] = {}
    for one in fields(cls):
        schema = _value(types[one.name], classes, is_written) | _narrowed(one.name, types[one.name])
        if one.name in about:
            schema["description"] = about[one.name]
        properties[one.name] = schema
    return {
        "type": "object",
        "properties": properties,
        "required": [one.name for one in fields(cls) if not (is_written and _has_default(one))],
        "additionalProperties": False,
    }


def _has_default(one: "Field[Any]") -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


def _narrowed(name: str, annotation: Any) -> Schema:
    """Return the further rules of fields whose names tell their form."""
    if name == "schema_version":
        return {"const": SCHEMA_VERSION}
    if annotation is not str:
        return {}
    if name.endswith("_at"):
        return {"format": "date-time"}
    return {"pattern": f"^{PATTERNS[name]}$"} if name in PATTERNS else {}


def _value(annotation: Any, classes: dict[str, Schema], is_written: bool) -> Schema:
    """Return the schema of a field's value."""
    if annotation in PLAIN:
        return dict(PLAIN[annotation])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, UnionType):
        return {
            "anyOf": [
                {"type": "null"} if one is type(None) else _value(one, classes, is_written)
                for one in arguments
            ]
        }
    if origin in (Mapping, dict):
        entry = _value(arguments[1], classes, is_written)
        return {"type": "object", "additionalProperties": entry}
    if origin in (tuple, list):
        return {"type": "array", "items": _value(arguments[0], classes, is_written)}
    assert is_dataclass(annotation), annotation
    assert isinstance(annotation, type)
    if annotation.__name__ not in classes:
        classes[annotation.__name__] = {}  # a class may hold itself
        classes[annotation.__name__] = _object(annotation, classes, is_written)
    return {"$ref": f"#/$defs/{annotation.__name__}"}
