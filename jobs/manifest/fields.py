"""The fields of a manifest's row, derived from the dataclasses that a clip is made of.

A new field is added to one of these dataclasses, with a type and an entry under `Args`. The
checks of every format, the columns of CSV, the model's defaults, the help text, the table in
docs/reference/manifest.md and the JSON Schema follow from here. Loads without torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nag.params import GuidanceParams
from pipelines.clip_inputs import InputFiles, InputName
from pipelines.lora_choice import LoraChoice
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest

FieldType = Literal[
    "text", "whole number", "number", "yes/no", "LoRAs", "image file", "image files", "video file",
    "image or video file",
]  # fmt: skip
FILE_TYPES: dict[InputName, FieldType] = {
    "image": "image file",
    "last_image": "image file",
    "reference_images": "image files",
    "video": "video file",
    "mask": "image or video file",
}
TEXT_TYPES: frozenset[FieldType] = frozenset({"text", "LoRAs", *FILE_TYPES.values()})
_TYPES: dict[Any, FieldType] = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "yes/no",
    tuple[LoraChoice, ...]: "LoRAs",
}


@dataclass(frozen=True)
class RowField:
    """One field of a row.

    Args:
        owner: dataclass that holds the value; its docstring describes the field.
        choices: allowed texts; any text if empty.
        is_nullable: True if null is a value of the field.
    """

    name: str
    value_type: FieldType
    owner: type[Any]
    choices: tuple[str, ...] = ()
    is_nullable: bool = False


@dataclass(frozen=True)
class RowLabels:
    """The fields of a row that are not part of its request.

    Args:
        model: name of the model (`nagfarm models` lists them).
        name: name of the clip, unique in the manifest: 1 to 128 letters, digits, `.`, `_` or `-`,
            not beginning with `.`.
        lora_weight: weight of each LoRA for which `loras` gives none, finite; 0 leaves it out.
    """

    model: str
    name: str
    lora_weight: float | None


def _fields_of(owner: type[Any]) -> Iterator[RowField]:
    """Yield the fields of a dataclass; a part that is a dataclass yields its own fields."""
    hints = get_type_hints(owner)
    for attribute in fields(owner):
        hint = hints[attribute.name]
        if owner is InputFiles and attribute.name in FILE_TYPES:
            value_type = FILE_TYPES[attribute.name]
            yield RowField(attribute.name, value_type, owner, is_nullable=True)
        elif is_dataclass(hint):
            assert isinstance(hint, type)
            yield from _fields_of(hint)
        elif get_origin(hint) is Literal:
            yield RowField(attribute.name, "text", owner, choices=get_args(hint))
        else:
            options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            (plain,) = (option for option in options if option is not NoneType)
            yield RowField(attribute.name, _TYPES[plain], owner, is_nullable=NoneType in options)


FIELDS = {
    field.name: field for owner in (GenerationRequest, RowLabels) for field in _fields_of(owner)
}
# The parts of a request that are dataclasses, by attribute.
REQUEST_PARTS: dict[str, type[Any]] = {
    name: hint
    for name, hint in get_type_hints(GenerationRequest).items()
    if isinstance(hint, type) and is_dataclass(hint)
}
RANDOM = "random"  # in the place of a seed: the plan draws one
WORDS = {"seed": (RANDOM,)}  # in the place of a field's value
GUIDANCE = "guidance"  # the mapping of the fields below, in YAML and JSONL
GUIDANCE_FIELDS = tuple(
    name
    for name, field in FIELDS.items()
    if name in ("method", "guidance_scale") or field.owner in get_args(GuidanceParams)
)
PARALLEL = (
    "parallel"  # the mapping of the fields below, in YAML and JSONL; one value, a ParallelConfig
)
PARALLEL_FIELDS = {field.name: field for field in _fields_of(ParallelConfig)}
# Texts in which everything may be meant, as it is in a prompt.
FREE_TEXTS = frozenset(
    name
    for name, field in FIELDS.items()
    if field.value_type == "text" and not field.choices and field.owner is GenerationRequest
)
CSV_COLUMNS = (*FIELDS, *PARALLEL_FIELDS)  # besides the notes, `jobs.manifest.tables.meta`


def is_column(name: str) -> bool:
    """Return True for a column of CSV that holds a field."""
    return name in CSV_COLUMNS
