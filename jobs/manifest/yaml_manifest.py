"""The YAML manifest: its keys, its defaults and its further clips. `yaml_axes` reads the axes."""

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import time
from functools import partial

from jobs.inputs.checked_inputs import ReadS3
from jobs.manifest.axes import Grid
from jobs.manifest.field_values import Unquoted, at
from jobs.manifest.fields import FIELDS, GUIDANCE, PARALLEL
from jobs.manifest.lines import FileWatch, ManifestFile, SourceLocation, decode, read_bytes
from jobs.manifest.rows import Given, NumberedRow, Row
from jobs.manifest.tables.meta import META
from jobs.manifest.walk.selection import ALL_ROWS, Wanted
from jobs.manifest.yaml_axes import AxesReader
from jobs.manifest.yaml_fields import NODE_KINDS, YamlFields, refuse_comment
from jobs.manifest.yaml_tree import YamlList, YamlMapping, YamlScalar, parse_yaml
from jobs.text import shown, unknown
from jobs.timetable.clock_times import UTC, time_of_day, zone_of
from jobs.timetable.dated_output import Calendar

MAX_YAML_BYTES = 16 * 1024 * 1024
KEYS = (
    "name", "model", "output", "time_zone", "day_starts", "defaults", "axes", "combine", "clips",
)  # fmt: skip


@dataclass(frozen=True)
class YamlFile:
    """A YAML manifest, held in memory; only the rows of its grid are computed one by one.

    Args:
        digest: SHA-256 of the file and of the files that its axes name.
        watch: the content of the file when it was read.
        calendar: rule by which the output is named after a day.
        defaults: values of the fields that a clip may leave out, the top-level model among them.
        clips: further clips, beside those of the grid.
    """

    name: Given | None
    output: Given | None
    calendar: Calendar
    digest: str
    watch: FileWatch
    defaults: dict[str, Given]
    grid: Grid | None
    clips: tuple[Row, ...]

    def rows(self, wanted: Wanted = ALL_ROWS) -> Iterator[NumberedRow]:
        """Yield the wanted rows with their numbers: those of the grid, then the further clips."""
        num_rows = self.grid.combination.length if self.grid else 0
        if self.grid:
            yield from self.grid.rows(wanted)
        for index, row in enumerate(self.clips, num_rows):
            if wanted[index]:
                yield index, row


def open_yaml_file(
    path: ManifestFile, read_s3: ReadS3 | None, extra_columns: Collection[str] = ()
) -> YamlFile:
    """Read a YAML manifest and the files that its axes name.

    Raises:
        ManifestError: the manifest or one of the files is wrong.
    """
    content = read_bytes(path, MAX_YAML_BYTES, "write so many clips as JSONL, one a line")
    start = SourceLocation(str(path), 1)
    root = parse_yaml(decode(content, start), str(path))
    if root is None:
        raise start.refuse("expected a manifest, the file is empty")
    fields = YamlFields(str(path), extra_columns)
    keys = fields.mapping(root, "a manifest")
    for key, line in keys.key_lines.items():
        if key not in KEYS:
            remedy = f"{key} is a field of a clip: write it under defaults"
            is_field = key in (*FIELDS, GUIDANCE, PARALLEL, META)
            message = remedy if is_field else unknown("key", key, KEYS)
            raise fields.location(line).refuse(message)
    hasher = hashlib.sha256(content)
    watch = FileWatch(path, len(content), hasher.hexdigest())
    name, output = _text(keys, "name", fields), _text(keys, "output", fields)
    calendar = _calendar(keys, fields)
    defaults = _defaults(keys, fields)
    grid = _grid(keys, AxesReader(fields, path.parent, hasher, read_s3))
    clips = tuple(_clips(keys, fields))
    digest = hasher.hexdigest()
    return YamlFile(name, output, calendar, digest, watch, defaults, grid, clips)


def _text(keys: YamlMapping, key: str, fields: YamlFields) -> Given | None:
    """Return the value of a key that takes text; None if the manifest does not have the key."""
    node = keys.entries.get(key)
    if node is None:
        return None
    location = fields.location(node.line)
    if isinstance(node, YamlScalar) and isinstance(node.value, str) and node.value:
        if key in ("name", "output"):
            with at(location):
                refuse_comment(key, node, if_close=True)
        return Given(node.value, location)
    came = NODE_KINDS[type(node)]
    if isinstance(node, YamlScalar):
        came = shown(node.value.text if isinstance(node.value, Unquoted) else node.value)
    raise location.refuse(
        f"{key} must be text, not {came}; put it in quotes if YAML reads it as another type"
    )


def _calendar(keys: YamlMapping, fields: YamlFields) -> Calendar:
    """Return the rule by which the output is named after a day."""
    zone, day_starts = UTC, time()
    if found := _text(keys, "time_zone", fields):
        with at(found.location):
            zone = zone_of(found.value)
    node = keys.entries.get("day_starts")
    if isinstance(node, YamlScalar) and isinstance(node.value, Unquoted):
        keys.entries["day_starts"] = replace(node, value=node.value.text)  # YAML reads 12:00 as 720
    if found := _text(keys, "day_starts", fields):
        read = time_of_day(found.value)
        if read is None:
            raise found.location.refuse(
                f"day_starts must be a time of the day such as 12:00, not {shown(found.value)}"
            )
        day_starts = read
    return Calendar(zone, day_starts)


def _defaults(keys: YamlMapping, fields: YamlFields) -> dict[str, Given]:
    node = keys.entries.get("defaults")
    given = fields.row(fields.mapping(node, "defaults")) if node else {}
    model = _text(keys, "model", fields)
    if model and "model" in given:
        raise given["model"].location.refuse(
            f"model is given twice, first on line {model.location.line}"
        )
    if "name" in given:
        raise given["name"].location.refuse("name belongs to one clip and cannot have a default")
    return given | ({"model": model} if model else {})


def _grid(keys: YamlMapping, reader: AxesReader) -> Grid | None:
    node = keys.entries.get("axes")
    combine = _text(keys, "combine", reader.fields)
    block = reader.fields.mapping(node, "axes") if node else None
    if block and block.entries:
        return reader.grid(block, reader.fields.location(keys.key_lines["axes"]), combine)
    if combine:
        raise combine.location.refuse("combine needs axes; there are none")
    return None


def _clips(keys: YamlMapping, fields: YamlFields) -> Iterator[Row]:
    node = keys.entries.get("clips")
    if node is None:
        return
    if not isinstance(node, YamlList):
        raise fields.location(node.line).refuse(
            f"clips must be a list of mappings, not {NODE_KINDS[type(node)]}"
        )
    for item in node.items:
        given = fields.row(fields.mapping(item, "a clip"))
        values = {name: entry.value for name, entry in given.items()}
        yield Row(values, fields.location(item.line), partial(_location_in, given))


def _location_in(given: dict[str, Given], name: str) -> SourceLocation | None:
    """Return the line on which a clip gives a field."""
    return given[name].location if name in given else None
