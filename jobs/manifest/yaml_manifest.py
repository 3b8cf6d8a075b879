"""The YAML manifest: its keys, its axes and its further clips."""

import hashlib
from array import array
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from jobs.manifest.combine import parse_combination, product_of_all
from jobs.manifest.guidance_fields import check_guidance_field
from jobs.manifest.lines import LineTable, Place, decode, read_bytes
from jobs.manifest.parallel_fields import check_parallel_field, make_parallel
from jobs.manifest.rows import (
    GUIDANCE,
    PARALLEL,
    Given,
    Row,
    RowValueError,
    Unquoted,
    check_field,
    check_value,
)
from jobs.manifest.values_file import ReadS3, read_values_file
from jobs.manifest.yaml_tree import YamlList, YamlMapping, YamlNode, YamlScalar, parse_yaml
from jobs.text import shown, unknown
from pipelines.parallel_config import ParallelConfig

MAX_YAML_BYTES = 16 * 1024 * 1024
_KEYS = ("name", "model", "output", "defaults", "axes", "combine", "clips")
_KINDS: dict[type[YamlNode], str] = {
    YamlScalar: "a single value",
    YamlList: "a list",
    YamlMapping: "a mapping",
}


@dataclass(frozen=True)
class YamlFile:
    """A YAML manifest: small enough to be held, apart from the rows of its grid."""

    name: Given | None
    output: str | None
    digest: str
    defaults: dict[str, Given]  # the top-level model among them
    grid: Grid | None
    clips: tuple[Row, ...]

    def rows(self) -> Iterator[Row]:
        """The grid's rows, then the further clips."""
        if self.grid:
            yield from self.grid.rows()
        yield from self.clips


def open_yaml_file(path: Path, read_s3: ReadS3 | None) -> YamlFile:
    """Reads a YAML manifest and the files that its axes name.

    Raises:
        ManifestError
    """
    content = read_bytes(path, MAX_YAML_BYTES, "write so many clips as JSONL, one a line")
    start = Place(str(path), 1)
    return _YamlReader(path, hashlib.sha256(content), read_s3).read(
        parse_yaml(decode(content, start), str(path))
    )


@dataclass
class _YamlReader:
    """Walks the tree; the hash takes in every file that an axis names."""

    path: Path
    hasher: Any
    read_s3: ReadS3 | None
    file: str = field(init=False)

    def __post_init__(self) -> None:
        self.file = str(self.path)

    def read(self, root: YamlNode | None) -> YamlFile:
        if root is None:
            raise self._place(1).refuse("expected a manifest, the file is empty")
        keys = self._mapping(root, "a manifest")
        for key in keys.entries:
            if key not in _KEYS:
                raise self._place(keys.key_lines[key]).refuse(unknown("key", key, _KEYS))
        name = self._top_level_text(keys, "name")
        output = self._top_level_text(keys, "output")
        defaults = self._defaults(keys)
        grid = self._grid(keys)
        clips = tuple(self._clips(keys))
        return YamlFile(
            name, output and output.value, self.hasher.hexdigest(), defaults, grid, clips
        )

    def _top_level_text(self, keys: YamlMapping, key: str) -> Given | None:
        node = keys.entries.get(key)
        if node is None:
            return None
        if isinstance(node, YamlScalar) and isinstance(node.value, str) and node.value:
            return Given(node.value, self._place(node.line))
        came = _KINDS[type(node)]
        if isinstance(node, YamlScalar):
            came = shown(node.value.text if isinstance(node.value, Unquoted) else node.value)
        raise self._place(node.line).refuse(
            f"{key} must be text, not {came}; put it in quotes where YAML misreads it"
        )

    def _defaults(self, keys: YamlMapping) -> dict[str, Given]:
        node = keys.entries.get("defaults")
        given = self._fields(self._with_guidance(self._mapping(node, "defaults"))) if node else {}
        model = self._top_level_text(keys, "model")
        if model and "model" in given:
            raise given["model"].place.refuse(
                f"model is given twice, first on line {model.place.line}"
            )
        if "name" in given:
            raise given["name"].place.refuse("name is one clip's alone and cannot have a default")
        return given | ({"model": model} if model else {})

    def _clips(self, keys: YamlMapping) -> Iterator[Row]:
        node = keys.entries.get("clips")
        if node is None:
            return
        if not isinstance(node, YamlList):
            raise self._place(node.line).refuse(
                f"clips must be a list of mappings, not {_KINDS[type(node)]}"
            )
        for item in node.items:
            clip = self._with_guidance(self._mapping(item, "a clip"))
            values = {name: entry.value for name, entry in self._fields(clip).items()}
            yield Row(values, self._place(item.line), _PlaceFinder(clip, self.file))

    def _fields(self, mapping: YamlMapping) -> dict[str, Given]:
        given: dict[str, Given] = {}
        for name, node in mapping.entries.items():
            if name == PARALLEL:
                given[name] = Given(self._parallel(node), self._place(node.line))
                continue
            self._check_field(name, mapping)
            given[name] = Given(self._checked(name, node), self._place(node.line))
        return given

    def _parallel(self, node: YamlNode) -> ParallelConfig:
        mapping = self._mapping(node, PARALLEL)
        self._check_keys(mapping, check_parallel_field)
        values = {name: self._checked(name, entry) for name, entry in mapping.entries.items()}
        try:
            return make_parallel(values)
        except RowValueError as error:
            raise self._place(node.line).refuse(str(error)) from error

    def _with_guidance(self, mapping: YamlMapping) -> YamlMapping:
        """The mapping with the fields of its `guidance` among its own."""
        if GUIDANCE not in mapping.entries:
            return mapping
        others = {name: node for name, node in mapping.entries.items() if name != GUIDANCE}
        guidance = self._guidance(mapping.entries[GUIDANCE], others)
        return YamlMapping(
            mapping.line, others | guidance.entries, mapping.key_lines | guidance.key_lines
        )

    def _guidance(self, node: YamlNode, others: Container[str]) -> YamlMapping:
        guidance = self._mapping(node, GUIDANCE)
        self._check_keys(guidance, lambda name: check_guidance_field(name, others))
        return guidance

    def _grid(self, keys: YamlMapping) -> Grid | None:
        node = keys.entries.get("axes")
        combine = self._top_level_text(keys, "combine")
        block = self._mapping(node, "axes") if node else None
        if block is None or not block.entries:
            if combine:
                raise combine.place.refuse("combine needs axes; there are none")
            return None
        place = self._place(keys.key_lines["axes"])
        axes: dict[str, Axis] = {}
        for name, entry in block.entries.items():
            if name == GUIDANCE:
                axes[name] = self._guidance_axis(entry, block.entries)
            elif name == PARALLEL:
                axes[name] = self._parallel_axis(entry)
            elif name == "name":
                raise self._place(block.key_lines[name]).refuse(
                    "name is one clip's alone and cannot be an axis"
                )
            else:
                self._check_field(name, block)
                axes[name] = self._axis(name, entry)
        lengths = {name: len(axis) for name, axis in axes.items()}
        try:
            combination = (
                parse_combination(combine.value, lengths) if combine else product_of_all(lengths)
            )
        except RowValueError as error:
            assert combine
            raise combine.place.refuse(str(error)) from error
        if combination.length > MAX_GRID_CLIPS:
            lengths_text = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise (combine.place if combine else place).refuse(
                f"the axes make {combination.length:,} clips ({lengths_text}); at most {MAX_GRID_CLIPS:,} are allowed"
            )
        return Grid(axes, combination, place)

    def _guidance_axis(self, node: YamlNode, axes: Container[str]) -> GuidanceAxis:
        nodes = self._mappings(GUIDANCE, node, "[{method: nag}, {method: vsf}]")
        items = tuple(self._fields(self._guidance(item, axes)) for item in nodes)
        return GuidanceAxis(items, tuple(self._place(item.line) for item in nodes))

    def _parallel_axis(self, node: YamlNode) -> ListAxis:
        nodes = self._mappings(PARALLEL, node, "[{ulysses: 2}, {ulysses: 2, ring: 2}]")
        return ListAxis(
            self.file, tuple(map(self._parallel, nodes)), array("Q", (item.line for item in nodes))
        )

    def _mappings(self, name: str, node: YamlNode, example: str) -> list[YamlNode]:
        """The items of an axis whose values are mappings."""
        if not (isinstance(node, YamlList) and node.items):
            raise self._place(node.line).refuse(
                f"the axis {name} must be a list of mappings, such as {example}; one for all clips goes under defaults"
            )
        return node.items

    def _axis(self, name: str, node: YamlNode) -> Axis:
        place = self._place(node.line)
        if isinstance(node, YamlScalar):
            raise place.refuse(
                f"the axis {name} must be a list; one value for all clips goes under defaults"
            )
        if isinstance(node, YamlList):
            if not node.items:
                raise place.refuse(f"the axis {name} must have at least one value")
            values = tuple(self._checked(name, item) for item in node.items)
            return ListAxis(self.file, values, array("Q", (item.line for item in node.items)))
        if list(node.entries) == ["range"]:
            return self._range_axis(name, node.entries["range"])
        if list(node.entries) == ["file"]:
            return self._file_axis(name, node.entries["file"])
        for key in node.entries:
            if key not in ("range", "file"):
                raise self._place(node.key_lines[key]).refuse(
                    unknown(f"key of the axis {name},", key, ("range", "file"))
                )
        raise place.refuse(
            f"the axis {name} must be a list, {{range: [start, stop]}} or {{file: PATH}}"
        )

    def _range_axis(self, name: str, node: YamlNode) -> Axis:
        place = self._place(node.line)
        if not isinstance(node, YamlList):
            raise place.refuse(
                f"range must be [start, stop] or [start, stop, step], not {_KINDS[type(node)]}"
            )
        bounds: list[int] = []
        for item in node.items:
            if not isinstance(item, YamlScalar) or type(item.value) is not int:
                came = shown(item.value) if isinstance(item, YamlScalar) else _KINDS[type(item)]
                raise self._place(item.line).refuse(f"range must hold whole numbers, not {came}")
            bounds.append(item.value)
        try:
            axis = RangeAxis(name, make_range(name, bounds), place)
            for end in (0, len(axis) - 1):
                axis.value(end)
        except RowValueError as error:
            raise place.refuse(str(error)) from error
        return axis

    def _file_axis(self, name: str, node: YamlNode) -> Axis:
        place = self._place(node.line)
        if not (isinstance(node, YamlScalar) and isinstance(node.value, str) and node.value):
            raise place.refuse("file must be a path or an s3:// URI")
        file, content = read_values_file(node.value, self.path.parent, self.read_s3, place)
        self.hasher.update(hashlib.sha256(content).digest())
        table = LineTable(decode(content, Place(file, 1)))
        if not table:
            raise Place(file, 1).refuse(
                f"the axis {name} must have at least one value, the file has none"
            )
        return FileAxis(name, file, table)

    def _checked(self, name: str, node: YamlNode) -> Any:
        value: Any = (
            node.value if isinstance(node, YamlScalar) else [] if isinstance(node, YamlList) else {}
        )
        try:
            return check_value(name, value)
        except RowValueError as error:
            raise self._place(node.line).refuse(str(error)) from error

    def _check_field(self, name: str, mapping: YamlMapping) -> None:
        try:
            check_field(name)
        except RowValueError as error:
            raise self._place(mapping.key_lines[name]).refuse(str(error)) from error

    def _check_keys(self, mapping: YamlMapping, check: Callable[[str], None]) -> None:
        for name, line in mapping.key_lines.items():
            try:
                check(name)
            except RowValueError as error:
                raise self._place(line).refuse(str(error)) from error

    def _mapping(self, node: YamlNode, what: str) -> YamlMapping:
        if not isinstance(node, YamlMapping):
            raise self._place(node.line).refuse(
                f"{what} must be a mapping (key: value), not {_KINDS[type(node)]}"
            )
        return node

    def _place(self, line: int) -> Place:
        return Place(self.file, line)


@dataclass(frozen=True, slots=True)
class _PlaceFinder:
    """Where a single clip gives a field."""

    clip: YamlMapping
    file: str

    def __call__(self, field: str) -> Place | None:
        entry = self.clip.entries.get(field)
        return Place(self.file, entry.line) if entry else None
