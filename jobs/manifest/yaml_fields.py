"""The fields of a row in a YAML manifest: checked values from tree nodes, each with its line."""

from collections.abc import Callable, Collection, Container
from dataclasses import dataclass
from typing import Any

from jobs.errors import RowValueError
from jobs.manifest.field_values import Unquoted, at, check_field, check_value
from jobs.manifest.fields import FREE_TEXTS, GUIDANCE, PARALLEL
from jobs.manifest.lines import SourceLocation
from jobs.manifest.rows import Given, check_guidance_field, check_parallel_field, make_parallel
from jobs.manifest.tables.meta import META, meta_name, split_meta
from jobs.manifest.yaml_tree import YamlList, YamlMapping, YamlNode, YamlScalar
from jobs.text import shown

NODE_KINDS: dict[type[YamlNode], str] = {
    YamlScalar: "a single value",
    YamlList: "a list",
    YamlMapping: "a mapping",
}


@dataclass(frozen=True)
class YamlFields:
    """A reader of the fields in one file. Each error cites the line at fault.

    Args:
        extra_columns: fields of a clip that become notes, besides `meta`.
    """

    file: str
    extra_columns: Collection[str] = ()

    def location(self, line: int) -> SourceLocation:
        return SourceLocation(self.file, line)

    def mapping(self, node: YamlNode, role: str) -> YamlMapping:
        """Return a node that must be a mapping. `role` names it in the error."""
        if isinstance(node, YamlMapping):
            return node
        raise self.location(node.line).refuse(
            f"{role} must be a mapping (key: value), not {NODE_KINDS[type(node)]}"
        )

    def row(self, mapping: YamlMapping) -> dict[str, Given]:
        """Return the fields of a clip or of the defaults, those of `guidance` among them."""
        others = {name: node for name, node in mapping.entries.items() if name != GUIDANCE}
        given: dict[str, Given] = {}
        if GUIDANCE in mapping.entries:
            given = self.guidance(mapping.entries[GUIDANCE], others)
        notes: dict[str, YamlNode] = {}
        for name, node in others.items():
            if name == META or meta_name(name, self.extra_columns) is not None:
                notes[name] = node
            elif name == PARALLEL:
                given[name] = self.parallel(node)
            else:
                with at(self.location(mapping.key_lines[name])):
                    _check_field(name, node)
                given[name] = self.value(name, node)
        if notes:
            location = self.location(next(mapping.key_lines[name] for name in notes))
            with at(location):
                document = {name: _plain(name, node) for name, node in notes.items()}
                given[META] = Given(split_meta(document, self.extra_columns)[1], location)
        return given

    def guidance(self, node: YamlNode, others: Container[str]) -> dict[str, Given]:
        """Return the fields of a mapping `guidance`. `others` are the names beside it."""
        mapping = self.mapping(node, GUIDANCE)
        self._check_keys(mapping, lambda name: check_guidance_field(name, others))
        return {name: self.value(name, entry) for name, entry in mapping.entries.items()}

    def parallel(self, node: YamlNode) -> Given:
        mapping = self.mapping(node, PARALLEL)
        self._check_keys(mapping, check_parallel_field)
        values = {name: self.value(name, entry).value for name, entry in mapping.entries.items()}
        location = self.location(node.line)
        with at(location):
            return Given(make_parallel(values), location)

    def value(self, name: str, node: YamlNode) -> Given:
        location = self.location(node.line)
        value: Any = _value_of(node)
        with at(location):
            if name in FREE_TEXTS:
                refuse_comment(name, node)
            elif name == "name":
                refuse_comment(name, node, if_close=True)
            return Given(check_value(name, value), location)

    def _check_keys(self, mapping: YamlMapping, check: Callable[[str], None]) -> None:
        for name, line in mapping.key_lines.items():
            with at(self.location(line)):
                check(name)


def _value_of(node: YamlNode) -> Any:
    """Return the value of a field without line numbers; most refuse a list and a mapping."""
    match node:
        case YamlScalar(value):
            return value
        case YamlList(items=items):
            return [_value_of(item) for item in items]
        case YamlMapping(entries=entries):
            return {key: _value_of(entry) for key, entry in entries.items()}


def _check_field(name: str, node: YamlNode) -> None:
    try:
        check_field(name)
    except RowValueError as error:
        if isinstance(node, YamlScalar) and node.value is None:
            raise RowValueError(f"{error}; put a text that holds ',' in quotes") from error
        raise


def refuse_comment(name: str, node: YamlNode, if_close: bool = False) -> None:
    """Refuse a comment behind a text without quotes, since it may be the rest of the text.

    Args:
        if_close: refuse only a comment without a blank behind its `#`, as in `take #1`.
    """
    if not (isinstance(node, YamlScalar) and node.comment):
        return
    if if_close and not node.comment[1:2].strip("# \t"):
        return
    came = "" if node.value is None else f"{shown(node.value)} and "
    raise RowValueError(
        f"{name} is {came}a comment, {shown(node.comment)}; put the text in quotes, or the comment "
        "on a line of its own"
    )


def _plain(name: str, node: YamlNode) -> Any:
    """Return a note, or a mapping of notes, without line numbers; of a list an empty one."""
    match node:
        case YamlMapping():
            return {key: _plain(f"{name}.{key}", entry) for key, entry in node.entries.items()}
        case YamlScalar(value):
            refuse_comment(name, node)
            return value.text if isinstance(value, Unquoted) else value
        case YamlList():
            return []
