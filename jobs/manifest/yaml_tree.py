"""A parser of YAML that yields a small tree with line numbers and is safe from YAML bombs.

The tree is built from the events of PyYAML's parser, without recursion, and no Python object is
constructed. Tags, anchors, aliases, duplicate keys, further documents and deep nesting are refused.
`yaml.compose` would not be simpler: PyYAML's composer recurses, and resolves every word with
patterns that take gigabytes for a long word, so all of its methods would have to be replaced.

Words have the meaning of YAML 1.1, with one exception. A word with a surprising meaning (`no` is a
yes/no value, `017` is fifteen, `1:30` is ninety) becomes an `Unquoted`, which fits no field, and
the error message advises to quote it. A comment behind a word without quotes stays with the word,
because `a cat #2` may be meant as one text.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.reader import Reader
from yaml.resolver import Resolver

from jobs.errors import ManifestError
from jobs.manifest.field_values import Unquoted
from jobs.manifest.lines import SourceLocation
from jobs.text import shown

MAX_DEPTH = 16
MAX_VALUES = 1_000_000

_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = Resolver()
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9]*)")
# A longer word is text, since PyYAML's patterns take gigabytes for megabytes of 1:1:1.
_MAX_WORD_CHARACTERS = 1000
_COMMENT = re.compile(r"[ \t]*(#[^\r\n]*)")
# A colon in a text without quotes, in a mapping in braces too. A comment may hold one.
_SECOND_COLON = re.compile(r":[ \t]+[^\s\"'\[{|>#]((?!\s#)[^,\[\]{}])*:(\s|$)")
_COMMENT_BEHIND = re.compile(r"\S[ \t]+#")
_FIRST_SIGN = re.compile(r"\s*(?:-[ \t]+)*+(?:[\w.-]+[ \t]*:[ \t]+)?+([%@`*&!|>\[\]{}\"',?:-])")
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
    """A word or a text. `value` is a str, int, float, None or `Unquoted`.

    Args:
        comment: comment behind a word without quotes, on its line; empty if there is none.
    """

    value: Any
    line: int
    comment: str = ""


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
    """Return the one document in `text`; None if there is none.

    Raises:
        ManifestError: it is not YAML, or more than plain data.
    """
    unprintable = Reader.NON_PRINTABLE.search(text)
    if unprintable:
        location = SourceLocation(file, text.count("\n", 0, unprintable.start()) + 1)
        raise location.refuse(
            f"YAML may not hold the control character U+{ord(unprintable.group()):04X}"
        )
    builder = _Builder(file, text)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        raise _refusal(text, file, error) from error
    except (yaml.YAMLError, ValueError) as error:
        raise SourceLocation(file, 1).refuse(
            f"is not YAML: {str(error).splitlines()[0]}"
        ) from error
    return builder.root


class _Builder:
    """A tree under construction, event by event."""

    def __init__(self, file: str, text: str) -> None:
        self.root: YamlNode | None = None
        self._file = file
        self._text = text
        self._open: list[YamlList | YamlMapping] = []
        self._keys: list[str | None] = []  # the key that awaits its value, or None
        self._num_documents = 0
        self._num_values = 0

    def take(self, event: yaml.Event) -> None:
        location = SourceLocation(self._file, event.start_mark.line + 1)
        match event:
            case yaml.AliasEvent():
                raise location.refuse(
                    "aliases (*name) are refused; write the value out, or quote a text with '*'"
                )
            case yaml.ScalarEvent():
                self._check_node(event, location)
                self._take_scalar(event, location)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._check_node(event, location)
                self._take_container(event, location)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()
                self._keys.pop()
            case yaml.DocumentStartEvent():
                self._num_documents += 1
                if self._num_documents > 1:
                    raise location.refuse("expected one YAML document, here a second one begins")
            case _:
                pass

    def _check_node(self, event: Any, location: SourceLocation) -> None:
        self._num_values += 1
        if event.tag is not None:
            raise location.refuse(
                f"tags are refused, got {shown(event.tag)}; quote a text that begins with '!'"
            )
        if event.anchor is not None:
            raise location.refuse(
                f"anchors (&name) are refused, got {shown(event.anchor)}; quote a text with '&'"
            )
        if self._num_values > MAX_VALUES:
            raise location.refuse(
                f"holds more than {MAX_VALUES:,} values; "
                "write so many as JSONL, or as {file: ...}"
            )

    def _take_container(self, event: yaml.Event, location: SourceLocation) -> None:
        if self._open and isinstance(self._open[-1], YamlMapping) and self._keys[-1] is None:
            raise location.refuse("a key must be a plain word, not a list or a mapping")
        if len(self._open) >= MAX_DEPTH:
            raise location.refuse(f"is nested more than {MAX_DEPTH} deep")
        node = (
            YamlList(location.line)
            if isinstance(event, yaml.SequenceStartEvent)
            else YamlMapping(location.line)
        )
        self._attach(node)
        self._open.append(node)
        self._keys.append(None)

    def _take_scalar(self, event: yaml.ScalarEvent, location: SourceLocation) -> None:
        if not (self._open and isinstance(self._open[-1], YamlMapping) and self._keys[-1] is None):
            is_plain = event.implicit[0]
            comment = _COMMENT.match(self._text, event.end_mark.index) if is_plain else None
            value = _value(event.value, is_plain=is_plain)
            self._attach(YamlScalar(value, location.line, comment[1] if comment else ""))
            return
        mapping, key = self._open[-1], event.value
        if key in mapping.key_lines:
            raise location.refuse(
                f"the key {shown(key)} is given twice, first on line {mapping.key_lines[key]}"
            )
        mapping.key_lines[key] = location.line
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
    """Return the meaning of a scalar. Only a word without quotes can be anything but text."""
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


def _refusal(text: str, file: str, error: yaml.MarkedYAMLError) -> ManifestError:
    """Return the error for a text that is not YAML, with advice if quotes may be missing."""
    mark, begun = error.problem_mark or error.context_mark, error.context_mark
    context = ""
    if mark and begun and begun.line != mark.line:
        context = f" {error.context}, which begins on line {begun.line + 1}"
    return SourceLocation(file, mark.line + 1 if mark else 1).refuse(
        f"is not YAML: {error.problem}{context}{_advice(text, error)}"
    )


def _advice(text: str, error: yaml.MarkedYAMLError) -> str:
    lines = text.splitlines()
    for mark in (error.problem_mark, error.context_mark):
        line = lines[mark.line][:_MAX_WORD_CHARACTERS] if mark and mark.line < len(lines) else ""
        if mark and (advice := _advice_on(line, mark.column)):
            return f"; {advice}"
    return ""


def _advice_on(line: str, column: int) -> str:
    """Return advice on a line that is not YAML; empty if there is none."""
    sign = line[column : column + 1]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return "indent with spaces, not with tabs"
    if _SECOND_COLON.search(line) or (sign == ":" and ": " in line[:column]):
        return "put a text that holds ': ' in quotes, such as prompt: \"a: b\""
    if sign == ":":
        return "mend the indentation, or put a text that holds ': ' in quotes"
    if not (sign and sign in "%@`"):
        found = _FIRST_SIGN.match(line)
        sign = found[1] if found else ""
    return _advice_on_sign(line, sign)


def _advice_on_sign(line: str, sign: str) -> str:
    """Return advice on a text that begins with a sign; empty if there is none."""
    if sign == '"' and "\\" in line:
        return "in double quotes a backslash is written twice; in single quotes once"
    if sign in ("'", '"'):
        return f"a text that begins with {sign} ends at the next one: use the other kind of quotes"
    if _COMMENT_BEHIND.search(line):
        return "' #' begins a comment: put a text that holds it in quotes"
    return f"if a text is to begin with {sign}, put all of it in quotes" if sign else ""
