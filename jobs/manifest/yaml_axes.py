"""The block `axes` of a YAML manifest: lists, ranges, files and mappings to a grid of clips."""

import hashlib
from array import array
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.inputs.checked_inputs import ReadS3
from jobs.manifest.axes import (
    MAX_GRID_CLIPS,
    Axis,
    FileAxis,
    Grid,
    GuidanceAxis,
    ListAxis,
    RangeAxis,
    make_range,
)
from jobs.manifest.field_values import at, check_field
from jobs.manifest.fields import GUIDANCE, PARALLEL
from jobs.manifest.lines import Hasher, SourceLocation, decode
from jobs.manifest.rows import Given
from jobs.manifest.tables.encoding import LineTable
from jobs.manifest.tables.meta import META, meta_name
from jobs.manifest.values_file import read_values_file
from jobs.manifest.walk.combine import parse_combination, product_of_all
from jobs.manifest.yaml_fields import NODE_KINDS, YamlFields, refuse_comment
from jobs.manifest.yaml_tree import YamlList, YamlMapping, YamlNode, YamlScalar
from jobs.text import shown, unknown

NOT_LISTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".yaml", ".yml")


@dataclass(frozen=True)
class AxesReader:
    """A reader of axes.

    Args:
        folder: folder of the manifest, for the files that axes name; a URI for a manifest in S3.
        hasher: takes in the digest of every file that an axis names.
        read_s3: reads the object at an `s3://` URI; None without S3.
    """

    fields: YamlFields
    folder: Path | str
    hasher: Hasher
    read_s3: ReadS3 | None

    def grid(self, block: YamlMapping, location: SourceLocation, combine: Given | None) -> Grid:
        """Return the grid of the axes in `block`, which stands at `location` and has entries."""
        axes = {name: self._axis(name, node, block) for name, node in block.entries.items()}
        lengths = {name: len(axis) for name, axis in axes.items()}
        if combine:
            location_of_size = combine.location
            with at(location_of_size):
                combination = parse_combination(combine.value, lengths)
        else:
            location_of_size, combination = location, product_of_all(lengths)
        if combination.length > MAX_GRID_CLIPS:
            lengths_text = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise location_of_size.refuse(
                f"the axes make {combination.length:,} clips ({lengths_text}); "
                f"at most {MAX_GRID_CLIPS:,} are allowed"
            )
        return Grid(axes, combination, location)

    def _axis(self, name: str, node: YamlNode, block: YamlMapping) -> Axis:
        key_location = self.fields.location(block.key_lines[name])
        if name == GUIDANCE:
            return self._guidance_axis(node, block.entries)
        if name == PARALLEL:
            return self._parallel_axis(node)
        if name in ("name", META) or meta_name(name, self.fields.extra_columns) is not None:
            raise key_location.refuse(f"{name} belongs to one clip and cannot be an axis")
        with at(key_location):
            check_field(name)
        return self._axis_of_field(name, node)

    def _axis_of_field(self, name: str, node: YamlNode) -> Axis:
        location = self.fields.location(node.line)
        if isinstance(node, YamlScalar):
            raise location.refuse(
                f"the axis {name} must be a list; one value for all clips goes under defaults"
            )
        if isinstance(node, YamlList):
            return self._list_axis(name, node)
        if list(node.entries) == ["range"]:
            return self._range_axis(name, node.entries["range"])
        if list(node.entries) == ["file"]:
            return self._file_axis(name, node.entries["file"])
        for key in node.entries:
            if key not in ("range", "file"):
                raise self.fields.location(node.key_lines[key]).refuse(
                    unknown(f"key of the axis {name},", key, ("range", "file"))
                )
        raise location.refuse(
            f"the axis {name} must be a list, {{range: [start, stop]}} or {{file: PATH}}"
        )

    def _list_axis(self, name: str, node: YamlList) -> ListAxis:
        if not node.items:
            raise self.fields.location(node.line).refuse(
                f"the axis {name} must have at least one value"
            )
        values = tuple(self.fields.value(name, item).value for item in node.items)
        return ListAxis(self.fields.file, values, _lines_of(node.items))

    def _range_axis(self, name: str, node: YamlNode) -> RangeAxis:
        location = self.fields.location(node.line)
        if not isinstance(node, YamlList):
            raise location.refuse(
                f"range must be [start, stop] or [start, stop, step], not {NODE_KINDS[type(node)]}"
            )
        bounds: list[int] = []
        for item in node.items:
            if not isinstance(item, YamlScalar) or type(item.value) is not int:
                is_scalar = isinstance(item, YamlScalar)
                came = shown(item.value) if is_scalar else NODE_KINDS[type(item)]
                raise self.fields.location(item.line).refuse(
                    f"range must hold whole numbers, not {came}"
                )
            bounds.append(item.value)
        with at(location):
            axis = RangeAxis(name, make_range(name, bounds), location)
            for end in (0, len(axis) - 1):
                axis.value(end)
        return axis

    def _file_axis(self, name: str, node: YamlNode) -> FileAxis:
        location = self.fields.location(node.line)
        if not (isinstance(node, YamlScalar) and isinstance(node.value, str) and node.value):
            raise location.refuse("file must be a path or an s3:// URI")
        with at(location):
            refuse_comment("file", node, if_close=True)
        if node.value.lower().endswith(NOT_LISTS):
            raise location.refuse(
                f"file {shown(node.value)} is a table or a document by its name; an axis takes a "
                "file with one value a line, such as prompts.txt"
            )
        file, content = read_values_file(node.value, self.folder, self.read_s3, location)
        self.hasher.update(hashlib.sha256(content).digest())
        table = LineTable(decode(content, SourceLocation(file, 1)))
        if not table:
            raise SourceLocation(file, 1).refuse(
                f"the axis {name} must have at least one value, the file has none"
            )
        return FileAxis(name, file, table)

    def _guidance_axis(self, node: YamlNode, axes: Container[str]) -> GuidanceAxis:
        nodes = self._mappings(GUIDANCE, node, "[{method: nag}, {method: vsf}]")
        items = tuple(self.fields.guidance(item, axes) for item in nodes)
        return GuidanceAxis(items, tuple(self.fields.location(item.line) for item in nodes))

    def _parallel_axis(self, node: YamlNode) -> ListAxis:
        nodes = self._mappings(PARALLEL, node, "[{ulysses: 2}, {ulysses: 2, ring: 2}]")
        values = tuple(self.fields.parallel(item).value for item in nodes)
        return ListAxis(self.fields.file, values, _lines_of(nodes))

    def _mappings(self, name: str, node: YamlNode, example: str) -> list[YamlNode]:
        """Return the items of an axis whose values are mappings."""
        if not (isinstance(node, YamlList) and node.items):
            raise self.fields.location(node.line).refuse(
                f"the axis {name} must be a list of mappings, such as {example}; "
                "one for all clips goes under defaults"
            )
        return node.items


def _lines_of(nodes: list[YamlNode]) -> Sequence[int]:
    return array("Q", (node.line for node in nodes))
