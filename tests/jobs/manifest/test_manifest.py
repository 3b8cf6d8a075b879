import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.digests import DigestSet, IdSet
from jobs.errors import ManifestError
from jobs.manifest import resolving
from jobs.manifest.manifest import Manifest, open_manifest
from jobs.manifest.walk.combine import parse_combination
from jobs.types import ClipSpec
from nag.params import VsfParams
from pipelines.catalog.model_config import ModelConfig
from pipelines.errors import RequestError
from pipelines.request import GenerationRequest
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]

SPRING = """
name: spring
model: tiny
output: s3://renders/spring
defaults: {num_frames: 13, fps: 12}
axes:
  prompt: [a circle moving right, a square moving up]
  negative_prompt: ["", red, blue]
  seed: {range: [0, 4]}
clips:
  - prompt: a last one
    name: finale
    seed: 9
    flow_shift: null
"""


def open_text(text: str, write: Write, catalog: FakeCatalog) -> Manifest:
    return open_manifest(write("manifest.yaml", text), catalog)


def seeds_and_prompts(manifest: Manifest) -> list[tuple[str, int]]:
    return [(spec.request.prompt, spec.request.sampling.seed) for spec in manifest.specs()]


def flat_values(spec: ClipSpec) -> dict[str, Any]:
    request = asdict(spec.request)
    for group in ("shape", "sampling", "nag", "vsf", "nasa"):
        request |= request.pop(group)
    return request


def test_a_manifest_with_axes_makes_their_product(write: Write, catalog: FakeCatalog) -> None:
    manifest = open_text(SPRING, write, catalog)
    specs = list(manifest.specs())
    assert (manifest.name, manifest.output) == ("spring", "s3://renders/spring")
    assert [
        (s.request.prompt, s.request.negative_prompt, s.request.sampling.seed) for s in specs[:-1]
    ] == list(
        itertools.product(
            ["a circle moving right", "a square moving up"], ["", "red", "blue"], range(4)
        )
    )
    assert [spec.name for spec in specs] == [
        *(f"spring-{index:06d}" for index in range(24)),
        "finale",
    ]
    assert len({spec.clip_id for spec in specs}) == 25


def test_values_come_from_the_row_the_defaults_and_the_model(
    write: Write, catalog: FakeCatalog
) -> None:
    *_, first_grid, last = open_text(SPRING, write, catalog).specs()
    of_manifest = first_grid.request.shape.num_frames, first_grid.request.fps
    assert of_manifest == (13, 12.0)
    of_model = first_grid.request.shape.height, first_grid.request.sampling.flow_shift
    assert of_model == (64, 3.0)
    assert last.request.sampling.flow_shift is None  # the row
    assert last.request.sampling.seed == 9
    assert last.request.negative_prompt == ""


def test_axes_win_over_defaults_and_rows_over_the_manifests_model(
    write: Write, catalog: FakeCatalog
) -> None:
    text = (
        "name: a\nmodel: tiny\ndefaults: {seed: 5}\n"
        "axes: {prompt: [p], seed: [1]}\nclips: [{prompt: q, model: coarse}]"
    )
    grid, clip = open_text(text, write, catalog).specs()
    assert (grid.request.sampling.seed, grid.model.name) == (1, "tiny")
    assert (clip.request.sampling.seed, clip.model.name) == (5, "coarse")


def test_a_manifest_can_be_walked_again(write: Write, catalog: FakeCatalog) -> None:
    for path in (
        write("a.yaml", SPRING),
        write("a.jsonl", '{"prompt": "a"}\n'),
        write("a.csv", "prompt\na\n"),
    ):
        manifest = open_manifest(path, catalog, model="tiny")
        assert list(manifest.specs()) == list(manifest.specs())


def test_the_same_rows_in_every_format_are_the_same_clips(
    write: Write, catalog: FakeCatalog
) -> None:
    rows = [
        {"prompt": "a, b", "negative_prompt": "red", "seed": 3, "fps": 8},
        {"prompt": 'the "c"', "nag_scale": 1.5},
    ]
    jsonl = write("run.jsonl", "\n".join(json.dumps(row) for row in rows))
    table = write(
        "run.csv",
        'prompt,negative_prompt,seed,fps,nag_scale\n"a, b",red,3,8,\n"the ""c""",,,,1.5\n',
    )
    tree = write("run.yaml", yaml.safe_dump({"model": "tiny", "clips": rows}))
    expected = list(open_manifest(tree, catalog).specs())
    assert len(expected) == 2
    for path in (jsonl, table):
        assert list(open_manifest(path, catalog, model="tiny").specs()) == expected


def test_a_flat_file_takes_its_stem_output_and_model_from_the_caller(
    write: Write, catalog: FakeCatalog
) -> None:
    path = write("night.csv", "prompt,model\na,\nb,coarse\n")
    manifest = open_manifest(path, catalog, output="file:///out", model="tiny")
    assert (manifest.name, manifest.output) == ("night", "file:///out")
    assert [spec.model.name for spec in manifest.specs()] == ["tiny", "coarse"]


def test_the_callers_output_and_model_win_over_a_yaml_manifests(
    write: Write, catalog: FakeCatalog
) -> None:
    manifest = open_manifest(write("a.yaml", SPRING), catalog, output="file:///out", model="coarse")
    assert manifest.output == "file:///out"
    assert {spec.model.name for spec in manifest.specs()} == {"coarse"}


def test_rows_that_repeat_are_one_clip(write: Write, catalog: FakeCatalog) -> None:
    path = write(
        "a.jsonl",
        '{"prompt": "a", "fps": 8}\n{"prompt": "b"}\n{"prompt": "a", "fps": 8.0, "seed": 0}\n',
    )
    rows = list(open_manifest(path, catalog, model="tiny").rows())
    assert [row.is_repeat for row in rows] == [False, False, True]
    assert rows[2].spec.clip_id == rows[0].spec.clip_id


def test_a_row_without_a_name_may_repeat_one_with_a_name(
    write: Write, catalog: FakeCatalog
) -> None:
    path = write("a.jsonl", '{"prompt": "a", "name": "x"}\n{"prompt": "a"}\n')
    assert [spec.name for spec in open_manifest(path, catalog, model="tiny").specs()] == ["x"]


def test_one_clip_may_have_several_names(write: Write, catalog: FakeCatalog) -> None:
    path = write(
        "a.jsonl",
        '{"prompt": "a"}\n'
        + "".join(f'{{"prompt": "a", "name": "{name}"}}\n' for name in ("x", "y")),
    )
    rows = list(open_manifest(path, catalog, model="tiny").rows())
    assert [(row.spec.name, row.is_named, row.is_repeat) for row in rows] == [
        ("a-000000", False, False), ("x", True, True), ("y", True, True)
    ]  # fmt: skip
    assert len({row.spec.clip_id for row in rows}) == 1


def test_a_clip_id_does_not_depend_on_name_and_position(write: Write, catalog: FakeCatalog) -> None:
    one = write("a.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\n')
    other = write("b.jsonl", '{"prompt": "b", "name": "x"}\n{"prompt": "a", "name": "y"}\n')
    a, b = (
        {s.request.prompt: s.clip_id for s in open_manifest(p, catalog, model="tiny").specs()}
        for p in (one, other)
    )
    assert a == b


def test_a_row_may_be_given_the_name_that_it_would_have(write: Write, catalog: FakeCatalog) -> None:
    path = write("a.jsonl", '{"prompt": "a"}\n{"prompt": "b", "name": "a-000001"}\n')
    names = [spec.name for spec in open_manifest(path, catalog, model="tiny").specs()]
    assert names == ["a-000000", "a-000001"]


def test_an_axis_can_be_a_file_beside_the_manifest(
    write: Write, catalog: FakeCatalog, tmp_path: Path
) -> None:
    (tmp_path / "lists").mkdir()
    write("lists/prompts.txt", "\ufeffa red circle\r\n\r\n  grün: a # b \n\nlast")
    write("seeds.txt", "1\n 2\n")
    text = "model: tiny\naxes: {prompt: {file: lists/prompts.txt}, seed: {file: seeds.txt}}"
    prompts = ["a red circle", "  grün: a # b ", "last"]
    assert seeds_and_prompts(open_text(text, write, catalog)) == list(
        itertools.product(prompts, [1, 2])
    )


def test_a_link_that_stays_in_the_folder_is_followed(
    write: Write, catalog: FakeCatalog, tmp_path: Path
) -> None:
    write("prompts.txt", "a")
    (tmp_path / "link.txt").symlink_to("prompts.txt")
    assert seeds_and_prompts(
        open_text("model: tiny\naxes: {prompt: {file: link.txt}}", write, catalog)
    ) == [("a", 0)]


def test_an_axis_can_be_an_object_in_s3(write: Write, catalog: FakeCatalog) -> None:
    objects = {"s3://bucket/prompts.txt": b"a\nb\n"}
    path = write("a.yaml", "model: tiny\naxes: {prompt: {file: s3://bucket/prompts.txt}}")
    manifest = open_manifest(path, catalog, objects.__getitem__)
    assert [prompt for prompt, _ in seeds_and_prompts(manifest)] == ["a", "b"]


def test_the_digest_covers_the_manifest_and_its_files(write: Write, catalog: FakeCatalog) -> None:
    flat = write("a.jsonl", '{"prompt": "a"}\n')
    assert open_manifest(flat, catalog).digest == hashlib.sha256(flat.read_bytes()).hexdigest()
    path = write("a.yaml", "model: tiny\naxes: {prompt: {file: p.txt}}")
    digests: set[str] = set()
    for prompts in ("a", "b", "a\n"):
        write("p.txt", prompts)
        digests.add(open_manifest(path, catalog).digest)
        assert open_manifest(path, catalog).digest in digests
    assert len(digests) == 3


def test_a_flat_file_that_changes_between_two_passes_is_refused(
    write: Write, catalog: FakeCatalog
) -> None:
    manifest = open_manifest(write("a.jsonl", '{"prompt": "a"}\n'), catalog, model="tiny")
    assert len(list(manifest.specs())) == 1
    write("a.jsonl", '{"prompt": "b"}\n')
    with pytest.raises(ManifestError, match="changed after it was opened"):
        list(manifest.specs())


def test_ranges_count_as_python_does(write: Write, catalog: FakeCatalog) -> None:
    ranges = "seed: {range: [10, 0, -5]}, guidance_scale: {range: [2, 5, 2]}"
    text = f"model: strong\naxes: {{prompt: [a], {ranges}}}"
    specs = open_text(text, write, catalog).specs()
    assert [(s.request.sampling.seed, s.request.sampling.guidance_scale) for s in specs] == [
        (10, 2.0), (10, 4.0), (5, 2.0), (5, 4.0)
    ]  # fmt: skip


def test_a_pairing_takes_values_side_by_side(write: Write, catalog: FakeCatalog) -> None:
    text = """
model: tiny
axes:
  seed: [1, 2]
  prompt: [a, b, c]
  negative_prompt: [x, y, z]
combine: (prompt, negative_prompt) * seed
"""
    requests = [spec.request for spec in open_text(text, write, catalog).specs()]
    assert [(one.prompt, one.negative_prompt, one.sampling.seed) for one in requests] == [
        (prompt, negative, seed)
        for prompt, negative in zip("abc", "xyz", strict=True)
        for seed in (1, 2)
    ]  # fmt: skip


def test_a_pairing_can_hold_a_product() -> None:
    combination = parse_combination("((a * b), c)", {"a": 2, "b": 3, "c": 6})
    assert [
        tuple(combination.positions(i)[n] for n in "abc") for i in range(combination.length)
    ] == [(a, b, a * 3 + b) for a in range(2) for b in range(3)]


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_cell_of_a_product_comes_once(lengths: list[int]) -> None:
    names = "abcde"[: len(lengths)]
    combination = parse_combination(" * ".join(names), dict(zip(names, lengths, strict=True)))
    found = [tuple(combination.positions(i)[n] for n in names) for i in range(combination.length)]
    assert found == list(itertools.product(*(range(length) for length in lengths)))


@given(
    prompts=st.lists(
        st.text("ab#: é'\"\n,{}", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=5
    ),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=5, unique=True),
)
def test_values_are_the_same_after_a_trip_through_yaml(
    prompts: list[str],
    seeds: list[int],
    catalog: FakeCatalog,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    document = {"model": "tiny", "axes": {"prompt": prompts, "seed": seeds}}
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    expected = list(dict.fromkeys(itertools.product(prompts, seeds)))
    assert seeds_and_prompts(open_manifest(path, catalog)) == expected


@given(
    row=st.fixed_dictionaries(
        {"prompt": st.text("ab \té,\"'\n", min_size=1, max_size=9).filter(str.strip)},
        optional={
            "negative_prompt": st.text("ab é", max_size=5),
            "seed": st.integers(0, 2**63 - 1),
            "num_frames": st.integers(0, 20).map(lambda k: 4 * k + 1),
            "height": st.integers(1, 9).map(lambda k: 16 * k),
            "fps": st.floats(1, 240) | st.integers(1, 240),
            "nag_scale": st.floats(1, 20),
            "nag_alpha": st.floats(0, 1),
            "nag_norm": st.sampled_from(["l1", "l2"]),
            "method": st.sampled_from(["none", "nag", "vsf", "nasa"]),
            "vsf_scale": st.floats(0, 20),
            "vsf_bias": st.floats(0, 20),
            "nasa_scale": st.floats(0, 20),
        },
    )
)
def test_a_clip_has_the_values_of_its_json_row(
    row: dict[str, Any], catalog: FakeCatalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "row.jsonl"
    path.write_text(json.dumps(row))
    (spec,) = open_manifest(path, catalog, model="tiny").specs()
    assert row.items() <= flat_values(spec).items()


# guidance


@pytest.mark.parametrize(
    "guidance",
    [
        {"method": "none"},
        {"method": "cfg", "guidance_scale": 4.5},
        {
            "nag_scale": 11,
            "nag_tau": 2,
            "nag_alpha": 0.5,
            "nag_start": 0.25,
            "nag_end": 0.75,
            "nag_norm": "l2",
        },
        {"method": "vsf", "vsf_scale": 2.0, "vsf_bias": 0.1},
        {"method": "nasa", "nasa_scale": 0.5},
        {"method": "cfg+nag", "guidance_scale": 3.0, "nag_scale": 5.0},
        {},
    ],
)
def test_guidance_as_a_mapping_means_its_fields_in_every_format(
    guidance: dict[str, Any], write: Write, catalog: FakeCatalog
) -> None:
    row = {"prompt": "a", "negative_prompt": "red", "seed": 3}
    flat, nested = row | guidance, row | {"guidance": guidance}
    given = [
        write("run.csv", ",".join(flat) + "\n" + ",".join(str(value) for value in flat.values())),
        *(
            write(f"{name}.jsonl", json.dumps(values))
            for name, values in (("flat", flat), ("nested", nested))
        ),
        write("flat.yaml", yaml.safe_dump({"clips": [flat]})),
        write("nested.yaml", yaml.safe_dump({"clips": [nested]})),
        write(
            "defaults.yaml", yaml.safe_dump({"defaults": {"guidance": guidance}, "clips": [row]})
        ),
        write(
            "axes.yaml",
            yaml.safe_dump({"defaults": row, "axes": {"prompt": ["a"], "guidance": [guidance]}}),
        ),
    ]
    (expected,) = open_manifest(given[0], catalog, model="tiny").specs()
    assert guidance.items() <= flat_values(expected).items()
    for path in given:
        (spec,) = open_manifest(path, catalog, model="tiny").specs()
        assert (spec.clip_id, spec.request) == (expected.clip_id, expected.request), path.name


def test_guidance_as_an_axis_combines_with_the_others(write: Write, catalog: FakeCatalog) -> None:
    text = """
model: strong
defaults: {nag_alpha: 0.4, negative_prompt: red}
axes:
  guidance: [{}, {method: none}, {method: cfg, guidance_scale: 7}, {method: nag, nag_alpha: 0.5}]
  seed: [1, 2]
  prompt: [a]
combine: prompt * guidance * seed
"""
    requests = [spec.request for spec in open_text(text, write, catalog).specs()]
    assert [
        (one.method, one.sampling.guidance_scale, one.nag.nag_alpha, one.sampling.seed)
        for one in requests
    ] == [
        ("cfg+nag", 5.0, 0.4, 1), ("cfg+nag", 5.0, 0.4, 2),
        ("none", 1.0, 0.4, 1), ("none", 1.0, 0.4, 2),
        ("cfg", 7.0, 0.4, 1), ("cfg", 7.0, 0.4, 2),
        ("nag", 1.0, 0.5, 1), ("nag", 1.0, 0.5, 2),
    ]  # fmt: skip


def test_guidance_is_inherited_field_by_field(write: Write, catalog: FakeCatalog) -> None:
    text = """
model: strong
defaults: {guidance: {method: vsf, vsf_scale: 2, vsf_bias: 0.5}}
axes:
  prompt: [a]
  guidance: [{vsf_scale: 3}]
clips:
  - {prompt: b, vsf_bias: 0.75}
  - {prompt: c, guidance: {method: nasa}}
"""
    a, b, c = (spec.request for spec in open_text(text, write, catalog).specs())
    assert (a.method, a.vsf) == ("vsf", VsfParams(3.0, 0.5))
    assert (b.method, b.vsf) == ("vsf", VsfParams(2.0, 0.75))
    assert (c.method, c.vsf) == ("nasa", VsfParams(2.0, 0.5))


def test_a_method_without_cfg_ignores_the_models_guidance_scale(
    write: Write, catalog: FakeCatalog
) -> None:
    methods = ("cfg", "none", "nag", "vsf", "nasa")
    rows = [{"negative_prompt": "b"}, *({"negative_prompt": "b", "method": one} for one in methods)]
    path = write("a.jsonl", "\n".join(json.dumps({"prompt": "a", **row}) for row in rows))
    requests = [spec.request for spec in open_manifest(path, catalog, model="strong").specs()]
    scales = [request.sampling.guidance_scale for request in requests]
    assert scales == [5.0, 5.0, 1.0, 1.0, 1.0, 1.0]


def test_a_guidance_scale_of_1_is_the_default_of_a_method_without_cfg(
    write: Write, catalog: FakeCatalog
) -> None:
    rows = [{"prompt": "a", "method": "nag"}, {"prompt": "a", "method": "nag", "guidance_scale": 1}]
    path = write("a.jsonl", "\n".join(json.dumps(row) for row in rows))
    found = open_manifest(path, catalog, model="strong").rows()
    assert [row.is_repeat for row in found] == [False, True]


def test_rows_are_computed_one_by_one(write: Write, catalog: FakeCatalog) -> None:
    manifest = open_text(
        "model: tiny\naxes: {prompt: [a, b], seed: {range: [0, 5000000]}}", write, catalog
    )
    assert next(iter(manifest.specs())).name == "manifest-000000"  # ten million clips


def test_a_digest_set_recognises_digests_that_were_added() -> None:
    digests, expected = DigestSet(), set[bytes]()
    for number in itertools.chain(range(3000), range(0, 6000, 2)):
        digest = hashlib.blake2b(number.to_bytes(4, "little"), digest_size=16).digest()
        assert digests.add(digest) == (digest not in expected)
        expected.add(digest)
    assert len(digests) == len(expected)


def test_a_set_of_ids_is_a_set() -> None:
    ids = [hashlib.md5(bytes([number])).hexdigest() for number in range(200)]
    some, others = IdSet(ids[:150]), IdSet(ids[100:])
    assert (len(some), set(some)) == (150, set(ids[:150]))
    assert some == set(ids[:150])
    assert some - others == set(ids[:100])
    assert ids[0] in some
    assert ids[199] not in some
    assert not some.add(ids[0])
    assert not any(word in some for word in ("autumn", "", f"F{ids[0][1:]}", f"{ids[0]}00"))
    zero = "0" * 32
    assert zero not in some
    assert (some.add(zero), some.add(zero)) == (True, False)
    assert zero in some
    assert (len(some), zero in set(some)) == (151, True)
    assert not IdSet()


def test_a_digest_set_distinguishes_digests_that_begin_alike() -> None:
    digests = DigestSet()
    alike = [bytes(8) + number.to_bytes(8, "big") for number in range(1, 200)]
    assert all(digests.add(digest) for digest in alike)
    assert not any(digests.add(digest) for digest in alike)


def test_a_digest_set_does_not_take_the_border_of_two_digests_for_one() -> None:
    digests, border = DigestSet(), bytes(16)
    for digest in (bytes(2) + b"a" + bytes(13), bytes(3) + b"b" + bytes(12)):
        assert digests.add(digest)
    assert border not in digests
    assert (digests.add(border), digests.add(border)) == (True, False)


def test_manifest_and_plan_load_without_the_libraries_of_workers() -> None:
    program = (
        "import sys, jobs.clip_id, jobs.manifest.manifest, jobs.plan.plan\n"
        "heavy = {'torch', 'ray', 'boto3', 'diffusers', 'transformers', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# the line that a refused request cites


@pytest.mark.parametrize("message", ["height is odd", "seed, prompt and name are fine", ""])
def test_the_cited_line_does_not_depend_on_the_wording_of_a_message(
    message: str, write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_config: ModelConfig, _request: GenerationRequest) -> None:
        raise RequestError.of(message, "width", "height")

    monkeypatch.setattr(resolving, "check_request", refuse)
    text = "model: tiny\nclips:\n- prompt: a\n  seed: 1\n  name: x\n  height: 64\n"
    with pytest.raises(ManifestError, match=r"manifest\.yaml:6: "):
        list(open_text(text, write, catalog).specs())
