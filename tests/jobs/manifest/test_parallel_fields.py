"""The number of devices that a row asks for, in every format."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.clip_id import clip_id
from jobs.errors import ManifestError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.rows import Catalog
from jobs.plan.plan import make_plan
from jobs.types import ClipSpec, LoraIdentity, ModelIdentity
from pipelines.catalog.folder_facts import FolderFacts
from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.tokenizer import Tokenizer
from pipelines.context_parallel.geometry import ModelGeometry
from pipelines.errors import ModelFolderError
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from tests.builders.specs import spec
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]


def asked(path: Path, catalog: Catalog, model: str | None = None) -> list[ParallelConfig]:
    return [spec.parallel for spec in open_manifest(path, catalog, model=model).specs()]


@pytest.mark.parametrize(
    ("fields", "parallel"),
    [
        ({"ulysses": 2}, ParallelConfig(2)),
        ({"ring": 5}, ParallelConfig(1, 5)),
        ({"ulysses": 2, "ring": 2}, ParallelConfig(2, 2)),
        ({"ulysses": 4, "across_hosts": True}, ParallelConfig(4, across_hosts=True)),
        ({"ulysses": 4, "across_hosts": False}, ParallelConfig(4)),
        ({"ulysses": 1}, ONE_DEVICE),
    ],
)
def test_every_format_can_ask_for_a_group(
    fields: dict[str, Any], parallel: ParallelConfig, write: Write, catalog: FakeCatalog
) -> None:
    nested = {"prompt": "a", "parallel": fields}
    cells = ",".join(json.dumps(value) for value in fields.values())
    paths = [
        write("a.jsonl", json.dumps(nested)),
        write("a.csv", f"prompt,{','.join(fields)}\na,{cells}\n"),
        write("clips.yaml", yaml.safe_dump({"clips": [nested]})),
        write(
            "defaults.yaml",
            yaml.safe_dump({"defaults": {"parallel": fields}, "clips": [{"prompt": "a"}]}),
        ),
        write("axes.yaml", yaml.safe_dump({"axes": {"prompt": ["a"], "parallel": [fields]}})),
    ]
    assert [asked(path, catalog, "tiny") for path in paths] == [[parallel]] * len(paths)


def test_a_row_without_parallel_has_the_group_of_its_model(
    write: Write, catalog: FakeCatalog
) -> None:
    rows = '{"prompt": "a"}\n{"prompt": "a", "model": "tiny"}\n'
    assert asked(write("a.jsonl", rows), catalog, "grouped") == [ParallelConfig(2), ONE_DEVICE]
    cells = "prompt,ulysses,ring\na,,\nb,,2\n"
    assert asked(write("a.csv", cells), catalog, "grouped") == [
        ParallelConfig(2),
        ParallelConfig(1, 2),
    ]


def test_the_parallel_of_a_row_replaces_its_models_as_a_whole(
    write: Write, catalog: FakeCatalog
) -> None:
    rows = [{"ring": 2}, {"ulysses": 4, "ring": 2}, {"ulysses": 1}, {}]
    text = "\n".join(
        json.dumps({"prompt": f"{number}", "parallel": row}) for number, row in enumerate(rows)
    )
    found = asked(write("a.jsonl", text), catalog, "grouped")
    assert found == [ParallelConfig(1, 2), ParallelConfig(4, 2), ONE_DEVICE, ONE_DEVICE]


def test_the_parallel_of_a_row_replaces_a_default_as_a_whole(
    write: Write, catalog: FakeCatalog
) -> None:
    text = (
        "model: tiny\ndefaults: {parallel: {ulysses: 4}}\n"
        "clips: [{prompt: a}, {prompt: b, parallel: {ring: 2}}]"
    )
    assert asked(write("a.yaml", text), catalog) == [ParallelConfig(4), ParallelConfig(1, 2)]


def test_parallel_as_an_axis_goes_with_another(write: Write, catalog: FakeCatalog) -> None:
    text = """
model: tiny
axes:
  prompt: [a, b]
  num_frames: [17, 21]
  parallel: [{ulysses: 2}, {ulysses: 2, ring: 3}]
combine: prompt * (num_frames, parallel)
"""
    specs = list(open_manifest(write("a.yaml", text), catalog).specs())
    assert [(spec.request.shape.num_frames, spec.parallel) for spec in specs] == [
        (17, ParallelConfig(2)),
        (21, ParallelConfig(2, 3)),
    ] * 2


def test_rows_that_differ_in_their_devices_alone_are_one_clip_rendered_as_the_first_asks(
    write: Write, catalog: FakeCatalog
) -> None:
    rows = (
        '{"prompt": "a"}\n{"prompt": "b", "parallel": {"ulysses": 2}}\n'
        '{"prompt": "a", "parallel": {"ulysses": 2}}\n'
    )
    manifest = open_manifest(write("a.jsonl", rows + '{"prompt": "b"}\n'), catalog, model="tiny")
    first, second, *repeats = manifest.rows()
    assert isinstance(first.spec, ClipSpec)
    assert isinstance(second.spec, ClipSpec)
    assert [first.spec.parallel, second.spec.parallel] == [ONE_DEVICE, ParallelConfig(2)]
    assert [row.spec.clip_id for row in repeats] == [first.spec.clip_id, second.spec.clip_id]
    assert all(row.is_repeat for row in repeats)
    plan = make_plan(manifest, set(), set())
    assert (plan.num_rows, plan.num_repeats, plan.num_clips) == (4, 2, 2)
    assert [pending.parallel for pending in plan.pending()] == [ONE_DEVICE, ParallelConfig(2)]


@given(st.integers(1, 64), st.integers(1, 64), st.booleans())
def test_the_devices_of_a_clip_are_not_in_its_id(
    ulysses: int, ring: int, across_hosts: bool
) -> None:
    alone = spec("circle")
    grouped = replace(alone, parallel=ParallelConfig(ulysses + 1, ring, across_hosts))
    assert (
        clip_id(grouped.model, grouped.request, grouped.tokens)
        == clip_id(alone.model, alone.request, alone.tokens)
        == alone.clip_id
    )


def test_a_group_changes_nothing_else_of_a_clip(write: Write, catalog: FakeCatalog) -> None:
    alone, grouped = (
        next(open_manifest(write(f"{name}.jsonl", row), catalog, model="tiny").specs())
        for name, row in (
            ("same", '{"prompt": "a"}'),
            ("same", '{"prompt": "a", "parallel": {"ulysses": 2}}'),
        )
    )
    assert replace(grouped, parallel=ONE_DEVICE) == alone


@dataclass(frozen=True)
class BrokenModel:
    """A model whose folder gives no geometry."""

    config: ModelConfig
    identity: ModelIdentity
    loras: Mapping[str, LoraIdentity]
    tokenizer: Tokenizer
    facts: FolderFacts

    @property
    def geometry(self) -> ModelGeometry:
        raise ModelFolderError("transformer/config.json: num_layers must be a whole number")


class BrokenCatalog:
    def get(self, name: str, /) -> BrokenModel:
        model = FakeCatalog().get(name)
        return BrokenModel(model.config, model.identity, model.loras, model.tokenizer, model.facts)


def test_the_geometry_is_read_only_for_a_group(write: Write) -> None:
    assert asked(write("a.jsonl", '{"prompt": "a", "parallel": {}}'), BrokenCatalog(), "tiny") == [
        ONE_DEVICE
    ]


def test_a_folder_without_a_geometry_is_refused_with_the_row_that_asks_for_a_group(
    write: Write,
) -> None:
    path = write(
        "a.jsonl", '{"prompt": "a"}\n{"prompt": "b", "model": "tiny", "parallel": {"ring": 2}}'
    )
    with pytest.raises(
        ManifestError, match=r"a\.jsonl:2: transformer/config\.json: num_layers must be"
    ):
        asked(path, BrokenCatalog(), "tiny")


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 4).map(lambda k: 4 * k + 1),
    st.sampled_from([32, 48, 96]),
)
def test_a_manifest_accepts_a_group_if_its_ranks_can_share_the_clip(
    tmp_path_factory: pytest.TempPathFactory, ulysses: int, ring: int, num_frames: int, height: int
) -> None:
    catalog = FakeCatalog()
    geometry: ModelGeometry = catalog.get("tiny").geometry
    row = {
        "prompt": "a",
        "num_frames": num_frames,
        "height": height,
        "parallel": {"ulysses": ulysses, "ring": ring},
    }
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text(json.dumps(row))
    num_tokens = ((num_frames - 1) // 4 + 1) * (height // 16) * 4
    can_share = geometry.num_heads % ulysses == 0 and num_tokens % (ulysses * ring) == 0
    if can_share or ulysses * ring == 1:
        (found,) = open_manifest(path, catalog, model="tiny").specs()
        assert asdict(found.parallel) == {"ulysses": ulysses, "ring": ring, "across_hosts": False}
    else:
        with pytest.raises(ManifestError, match=r"a\.jsonl:1: parallel is "):
            asked(path, catalog, "tiny")
