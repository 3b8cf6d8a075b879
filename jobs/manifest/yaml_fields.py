"""The fields of a row in a YAML manifest: checked values from tree nodes, each with its line."""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from jobs.manifest.field_values import at, check_field, check_value
from jobs.manifest.fields import GUIDANCE, PARALLEL
from jobs.manifest.lines import SourceLocation
from jobs.manifest.rows import Given, check_guidance_field, check_parallel_field, make_parallel
from jobs.manifest.yaml_tree import YamlList, YamlMapping, YamlNode, YamlScalar

NODE_KINDS: dict[type[YamlNode], str] = {
    YamlScalar: "a single value",
    YamlList: "a list",
    YamlMapping: "a mapping",
}


@dataclass(frozen=True)
class YamlFields:
    """A reader of the fields in one file. Each error cites the line at fault."""

    file: str

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
        for name, node in others.items():
            with at(self.location(mapping.key_lines[name])):
                if name != PARALLEL:
                    check_field(name)
            given[name] = self.parallel(node) if name == PARALLEL else self.value(name, node)
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
        value: Any = node.value if isinstance(node, YamlScalar) else _empty(node)
        with at(location):
            return Given(check_value(name, value), location)

    def _check_keys(self, mapping: YamlMapping, check: Callable[[str], None]) -> None:
        for name, line in mapping.key_lines.items():
            with at(self.location(line)):
                check(name)


def _empty(node: YamlList | YamlMapping) -> list[Any] | dict[str, Any]:
    """Return a container of the node's kind, to be refused as the value of a field."""
    return [] if isinstance(node, YamlList) else {}
