"""The LoRAs that a clip uses, among those that its model's YAML declares. Loads without torch.

A choice is written as text, names and weights between spaces (`style=0.8 detail`, or `none`), as a
list of such words, or as a mapping of names to weights. A name without a weight has that of the
row's `lora_weight`, or else that of the model's YAML.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

NO_LORAS = "none"  # so no LoRA may have this name
NAME_PATTERN = "[A-Za-z0-9_-]+"
FORMS = "such as 'style=0.8 detail', [style, detail] or {style: 0.8, detail: 1}"
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# Names in the order in which they are written, each with its weight if one is given.
WrittenChoice: TypeAlias = tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class LoraChoice:
    """A LoRA that is on for a clip.

    Args:
        name: name in the model's YAML.
        weight: factor of its change, not 0.
    """

    name: str
    weight: float


def read_choice(value: object) -> WrittenChoice:
    """Return a choice that is text, a list of words, or a mapping.

    Raises:
        ValueError: it has another form, or names a LoRA twice.
    """
    if isinstance(value, str):
        words = value.split()
        if not words:
            raise ValueError(f"must be names of LoRAs, {FORMS}; without any it is '{NO_LORAS}'")
        return _unique(() if words == [NO_LORAS] else map(_read_word, words))
    if isinstance(value, list):
        return _unique(map(_read_word, cast("list[Any]", value)))
    if isinstance(value, dict):
        entries = cast("dict[Any, Any]", value)
        return _unique((_name(name), _weight(name, weight)) for name, weight in entries.items())
    raise ValueError(f"must be names of LoRAs, {FORMS}")


def _read_word(word: object) -> tuple[str, float | None]:
    if not isinstance(word, str) or "=" not in word:
        return _name(word), None
    name, _, text = word.partition("=")
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"must be names of LoRAs with a weight such as 0.8, not {text[:40]!r}")
    return _name(name), _weight(name, float(text))


def _name(name: object) -> str:
    if name == NO_LORAS:
        raise ValueError(f"must be names of LoRAs, {FORMS}; '{NO_LORAS}' stands alone")
    if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
        came = f", not {name[:40]!r}" if isinstance(name, str) else ""
        raise ValueError(f"must be names of LoRAs{came}, {FORMS}")
    return name


def _weight(name: object, weight: object) -> float | None:
    if weight is None:
        return None
    if type(weight) not in (int, float) or not math.isfinite(cast("float", weight)):
        raise ValueError(f"must have a finite weight for {str(name)[:40]!r}, such as 0.8")
    return float(cast("float", weight))


def _unique(choice: Iterable[tuple[str, float | None]]) -> WrittenChoice:
    found = tuple(choice)
    names = [name for name, _ in found]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"must name each LoRA once; {name[:40]!r} is there twice")
    return found
