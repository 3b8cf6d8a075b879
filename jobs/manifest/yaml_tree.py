"""YAML to a small tree that knows its lines and cannot be a bomb.

Built from the parser's events, without recursion and without constructing a single object: tags, anchors, aliases,
duplicate keys, further documents and deep nesting are refused. Words mean what YAML 1.1 says, with one exception:
where that surprises (`no` is a yes/no value, `017` is fifteen, `1:30` is ninety), the word becomes an `Unquoted`, which
fits no field, and the message says to quote it.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader
from yaml.resolver import Resolver

from jobs.manifest.lines import Place
from jobs.manifest.rows import Unquoted
from jobs.text import shown

MAX_DEPTH = 16
MAX_VALUES = 1_000_000

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = Resolver()
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_MAX_WORD_CHARACTERS = (
    1000  # longer is text; PyYAML's patterns take gigabytes for megabytes of 1:1:1
)
_READINGS = {
    "bool": "a yes/no value",
    "timestamp": "a date",
    "int": "a number that is not plain decimal",
    "float": "a number in base 60",
    "merge": "a merge key",
    "value": "a default key",
}


@dataclass(slots=True)
class YamlScalar:
    """A word or a text. `value` is a str, int, float, None or `Unquoted`."""

    value: Any
    line: int


@dataclass(slots=True)
class YamlList:
    line: int
    items: list["YamlNode"] = field(default_factory=list["YamlNode"])


@dataclass(slots=True)
class YamlMapping:
    line: int
    entries: dict[str, "YamlNode"] = field(default_factory=dict[str, "YamlNode"])
    key_lines: dict[str, int] = field(default_factory=dict[str, int])


YamlNode = YamlScalar | YamlList | YamlMapping


def parse_yaml(text: str, file: str) -> YamlNode | None:
    """The one document in `text`; None where there is none.

    Raises:
        ManifestError: it is not YAML, or more than plain data.
    """
    unprintable = Reader.NON_PRINTABLE.search(text)
    if unprintable:
        place = Place(file, text.count("\n", 0, unprintable.start()) + 1)
        raise place.refuse(
            f"YAML may not hold the control character U+{ord(unprintable.group()):04X}"
        )
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Place(file, mark.line + 1 if mark else 1).refuse(
            f"is not YAML: {error.problem}"
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise Place(file, 1).refuse(f"is not YAML: {str(error).splitlines()[0]}") from error
    return builder.root


class _Builder:
    """Takes events, one after the other, and keeps the containers that are open."""

    def __init__(self, file: str) -> None:
        self.root: YamlNode | None = None
        self._file = file
        self._open: list[YamlList | YamlMapping] = []
        self._keys: list[str | None] = []  # for each open mapping the key whose value comes next
        self._num_documents = 0
        self._num_values = 0

    def take(self, event: yaml.Event) -> None:
        place = Place(self._file, event.start_mark.line + 1)
        match event:
            case yaml.AliasEvent():
                raise place.refuse("aliases (*name) are refused; write the value out")
            case yaml.ScalarEvent():
                self._check_node(event, place)
                self._take_scalar(event, place)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_node(event, place)
                self._take_container(event, place)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()
                self._keys.pop()
            case yaml.DocumentStartEvent():
                self._num_documents += 1
                if self._num_documents > 1:
                    raise place.refuse("expected one YAML document, here a second one begins")
            case _:
                pass

    def _check_node(self, event: Any, place: Place) -> None:
        self._num_values += 1
        if event.tag is not None:
            raise place.refuse(
                f"tags are refused, came {shown(event.tag)}; quote a text that begins with '!'"
            )
        if event.anchor is not None:
            raise place.refuse(
                f"anchors (&name) are refused, came {shown(event.anchor)}; quote a text with '&'"
            )
        if self._num_values > MAX_VALUES:
            raise place.refuse(
                f"holds more than {MAX_VALUES:,} values; write so many as JSONL, or as {{file: ...}}"
            )

    def _take_container(self, event: yaml.Event, place: Place) -> None:
        if self._open and isinstance(self._open[-1], YamlMapping) and self._keys[-1] is None:
            raise place.refuse("a key must be a plain word, not a list or a mapping")
        if len(self._open) >= MAX_DEPTH:
            raise place.refuse(f"is nested more than {MAX_DEPTH} deep")
        node = (
            YamlList(place.line)
            if isinstance(event, yaml.SequenceStartEvent)
            else YamlMapping(place.line)
        )
        self._attach(node)
        self._open.append(node)
        self._keys.append(None)

    def _take_scalar(self, event: yaml.ScalarEvent, place: Place) -> None:
        if not (self._open and isinstance(self._open[-1], YamlMapping) and self._keys[-1] is None):
            self._attach(YamlScalar(_value(event.value, is_plain=event.implicit[0]), place.line))
            return
        mapping, key = self._open[-1], event.value
        if key in mapping.key_lines:
            raise place.refuse(
                f"the key {shown(key)} is given twice, first on line {mapping.key_lines[key]}"
            )
        mapping.key_lines[key] = place.line
        self._keys[-1] = key

    def _attach(self, node: YamlNode) -> None:
        if not self._open:
            self.root = node
            return
        container = self._open[-1]
        if isinstance(container, YamlList):
            container.items.append(node)
            return
        key = self._keys[-1]
        assert key is not None
        container.entries[key] = node
        self._keys[-1] = None


def _value(text: str, *, is_plain: bool) -> Any:
    """What a scalar means. Only words without quotes are ever anything but text."""
    if not is_plain or len(text) > _MAX_WORD_CHARACTERS:
        return text
    kind = _RESOLVER.resolve(yaml.ScalarNode, text, (True, False)).rpartition(":")[2]
    if kind == "str":
        return text
    if kind == "null":
        return None
    if kind == "int" and _DECIMAL.fullmatch(text):
        return int(text)
    if kind == "float" and ":" not in text and "_" not in text:
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return Unquoted(text, _READINGS[kind])
