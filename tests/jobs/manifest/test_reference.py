"""The page on manifests, the JSON Schema and the help agree with the fields and with the reader."""

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ManifestError
from jobs.manifest import csv_table, lines, values_file, yaml_manifest, yaml_tree
from jobs.manifest.axes import MAX_GRID_CLIPS
from jobs.manifest.field_values import MAX_RUN_NAME_CHARACTERS
from jobs.manifest.fields import FIELDS, GUIDANCE_FIELDS, PARALLEL_FIELDS, RowField, RowLabels
from jobs.manifest.manifest import open_manifest
from jobs.manifest.reference import (
    PAGE_FILE,
    SCHEMA_FILE,
    describe,
    fields_help,
    json_schema,
    schema_text,
    with_tables,
)
from jobs.manifest.rows import model_defaults
from jobs.manifest.walk.combine import MAX_EXPRESSION_CHARACTERS
from pipelines.clip_inputs import InputFiles
from pipelines.request import GuidanceMethod
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]

FOLDER = Path(__file__).parents[3] / "docs" / "reference"
PAGE = (FOLDER / PAGE_FILE).read_text(encoding="utf-8")
REMEDY = "run python -m jobs.manifest.reference"
SCHEMA = json_schema()
CLIP_SCHEMA = {"$ref": "#/$defs/clip", "$defs": SCHEMA["$defs"]}
MANIFEST_OF_THE_PAGE = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[0]


def is_valid(document: object, schema: dict[str, Any]) -> bool:
    validator: Any = jsonschema.Draft202012Validator(schema)
    return next(validator.iter_errors(document), None) is None


def is_read(row: dict[str, Any], path: Path, catalog: FakeCatalog) -> bool:
    path.write_text(json.dumps(row))
    try:
        list(open_manifest(path, catalog, model="tiny").specs())
    except ManifestError:
        return False
    return True


def test_the_tables_of_the_page_are_those_of_the_fields() -> None:
    assert with_tables(PAGE) == PAGE, REMEDY


def test_the_page_and_the_help_name_every_field() -> None:
    names = [*FIELDS, *PARALLEL_FIELDS]
    assert [name for name in names if f"| `{name}` |" not in PAGE] == []
    assert [name for name in names if not re.search(rf"\b{name}\b", fields_help())] == []


@pytest.mark.parametrize("field", [*FIELDS.values(), *PARALLEL_FIELDS.values()])
def test_every_field_is_described(field: RowField) -> None:
    assert len(describe(field)) > 10


def test_a_model_gives_a_default_to_every_field_of_a_request_but_the_prompt(
    catalog: FakeCatalog,
) -> None:
    of_request = {name for name, field in FIELDS.items() if field.owner is not RowLabels}
    inputs = {one.name for one in fields(InputFiles)}
    assert model_defaults(catalog.get("tiny").config).keys() == (of_request | inputs) - {"prompt"}


def test_the_page_names_every_key_and_method() -> None:
    assert [key for key in yaml_manifest.KEYS if f"| `{key}` |" not in PAGE] == []
    methods = FIELDS["method"].choices
    assert set(methods) == set(GuidanceMethod.__args__)
    assert [method for method in methods if f"`{method}`" not in PAGE] == []


def test_the_page_states_the_limits_of_the_reader() -> None:
    page = " ".join(PAGE.split())
    mebibytes = 1024 * 1024
    for limit in (
        f"at most {yaml_manifest.MAX_YAML_BYTES // mebibytes} MiB and a million values",
        f"more than {yaml_tree.MAX_DEPTH} levels",
        f"lines up to {lines.MAX_LINE_BYTES // mebibytes} MiB",
        f"rows up to {csv_table.MAX_RECORD_CHARACTERS // mebibytes} million characters",
        f"at most {values_file.MAX_VALUES_FILE_BYTES // mebibytes} MiB large",
        f"At most {MAX_EXPRESSION_CHARACTERS:,} characters, 20 parentheses",
        f"{MAX_GRID_CLIPS:,} clips",
        f"1 to {MAX_RUN_NAME_CHARACTERS} characters",
    ):
        assert limit in page
    assert yaml_tree.MAX_VALUES == 1_000_000


def test_the_schema_in_the_docs_is_that_of_the_fields() -> None:
    assert (FOLDER / SCHEMA_FILE).read_text(encoding="utf-8") == schema_text(), REMEDY
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_accepts_the_manifest_of_the_page() -> None:
    assert is_valid(yaml.safe_load(MANIFEST_OF_THE_PAGE), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"axis": {}},
        {"defaults": {"name": "x"}},
        {"defaults": {"hieght": 64}},
        {"axes": {"name": ["x"]}},
        {"axes": {"seed": 3}},
        {"axes": {"seed": []}},
        {"axes": {"prompt": {"range": [0, 4]}}},
        {"axes": {"guidance": {"method": "nag"}}},
        {"clips": [{"ulysses": 2}]},
        {"clips": {"prompt": "a"}},
        {"combine": ""},
    ],
)
def test_the_schema_and_the_reader_refuse_the_same_manifests(
    change: dict[str, Any], write: Write, catalog: FakeCatalog
) -> None:
    document = {"name": "a", "model": "tiny", "clips": [{"prompt": "a"}], **change}
    assert not is_valid(document, SCHEMA)
    with pytest.raises(ManifestError):
        list(open_manifest(write("a.yaml", yaml.safe_dump(document)), catalog).specs())


values = (
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats(-3, 30) | st.sampled_from(["a", ""])
)
choices = st.sampled_from(["none", "cfg", "nag", "l1", "l2", "tiny", "coarse", "x y", ".x"])
rows = st.fixed_dictionaries(
    {"prompt": st.just("a") | values},
    optional={
        **{name: values | choices for name in FIELDS if name != "prompt"},
        "guidance": st.dictionaries(st.sampled_from(GUIDANCE_FIELDS), values | choices) | values,
        "parallel": st.dictionaries(st.sampled_from([*PARALLEL_FIELDS]), values) | values,
        "sede": values,
        "meta": st.dictionaries(st.sampled_from(["a", ""]), values) | values,
        "meta.b": values,
    },
)


@given(row=rows)
def test_the_schema_accepts_every_row_that_the_reader_accepts(
    row: dict[str, Any], catalog: FakeCatalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if is_read(row, tmp_path_factory.getbasetemp() / "schema.jsonl", catalog):
        assert is_valid(row, CLIP_SCHEMA)


ONE_OF_EACH_TYPE: dict[str, list[Any]] = {
    "text": [17, 1.5, True, None, ["a"], {}],
    "whole number": ["17", 1.5, True, None, [1], {}],
    "number": ["1.5", True, [1], {}],
    "yes/no": ["true", 1, None, [True], {}],
    "LoRAs": [3, True, "", [1], {"style": "0.8"}],
    "image file": [3, True, ["a.png"], {}],
    "video file": [3, True, ["a.mp4"], {}],
    "image or video file": [3, True, ["a.mp4"], {}],
    "image files": [3, True, [1], ["a.png"] * 9, {}],
}
INPUTS = ("image", "last_image", "reference_images", "video", "mask")
GOOD_VALUES: dict[str, Any] = {
    **dict.fromkeys(INPUTS),
    **dict.fromkeys(("guidance_scale_2", "strength")),  # numbers are for models that none here is
    "fit": "contain",
    "prompt": "a",
    "negative_prompt": "b",
    "model": "coarse",
    "name": "x.y-1",
    "num_frames": 17,
    "height": 64,
    "width": 64,
    "method": "vsf",
    "nag_norm": "l2",
    "nag_alpha": 0.5,
    "nag_start": 0.1,
    "nag_end": 0.9,
    "guidance_scale": 1,
    "flow_shift": None,
    "audio": True,
    "guidance_rescale": 0,
    "loras": {"style": 0.5},
    "text": "truncate",
}
WITH_LORAS = {name: {"model": "styled"} for name in ("loras", "lora_weight")}


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_the_schema_and_the_reader_agree_on_the_type_of_each_field(
    field: RowField, tmp_path: Path, catalog: FakeCatalog
) -> None:
    good = GOOD_VALUES.get(field.name, 2)
    row = {"prompt": "a", field.name: good} | WITH_LORAS.get(field.name, {})
    assert is_read(row, tmp_path / "a.jsonl", catalog)
    assert is_valid(row, CLIP_SCHEMA)
    for bad in ONE_OF_EACH_TYPE[field.value_type]:
        row = {"prompt": "a", field.name: bad}
        assert not is_read(row, tmp_path / "a.jsonl", catalog)
        assert not is_valid(row, CLIP_SCHEMA)
