"""Texts beyond a model's limit, and rows with equal pixels, in manifests for the Shapes models."""

import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.errors import ManifestError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.manifest.walk.identifying import BATCH_CLIPS
from jobs.plan.plan import Plan, make_plan
from jobs.types import ClipSpec
from tests.builders.manifests import jsonl
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]

MODELS = ("shapes-wan", "shapes-ltx", "shapes-wan-4step", "shapes-ltx-4step")
WORDS = "a red circle moving right over a green background, "
ONE, OTHER = (" ".join([WORDS * 32, end])[:1620] for end in ("slowly", "fast"))
REMEDY = "shorten it, or let its end be cut with text: truncate"


@pytest.fixture(scope="module")
def shapes() -> ModelCatalog:
    return ModelCatalog()


def plan_of(path: Path, shapes: ModelCatalog, model: str | None = None) -> Plan:
    return make_plan(open_manifest(path, shapes, model=model), (), ())


def refusal(path: Path, shapes: ModelCatalog, model: str | None = None) -> str:
    with pytest.raises(ManifestError) as refused:
        plan_of(path, shapes, model)
    return str(refused.value)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("field", ["prompt", "negative_prompt"])
def test_a_text_beyond_the_limit_is_refused_with_file_line_and_both_numbers(
    write: Write, shapes: ModelCatalog, model: str, field: str
) -> None:
    long = "red " * 370
    rows = [{"prompt": "a"}, {"prompt": "b", field: long}]
    path = write("a.jsonl", jsonl(rows))
    assert refusal(path, shapes, model) == (
        f"{path}:2: {field} must have at most 48 tokens for {model}, not 371: {REMEDY}"
    )


def test_the_line_is_that_of_the_text(write: Write, shapes: ModelCatalog) -> None:
    long = "red " * 48
    head = "model: shapes-wan\n"
    default = f"{head}defaults:\n  negative_prompt: {long}\nclips:\n  - prompt: a\n"
    for name, text, line in (
        ("axis.yaml", f"{head}axes:\n  prompt:\n    - a\n    - {long}\n", 5),
        ("default.yaml", default, 3),
        ("clip.yaml", f"{head}clips:\n  - seed: 1\n    prompt: {long}\n", 4),
        ("rows.csv", f"seed,prompt,model\n1,a,shapes-wan\n2,{long},shapes-wan\n", 3),
    ):
        path = write(name, text)
        assert refusal(path, shapes).startswith(f"{path}:{line}: "), name


def test_two_long_prompts_that_differ_in_their_last_words_are_never_cut_in_silence(
    write: Write, shapes: ModelCatalog
) -> None:
    assert len(ONE) == len(OTHER) == 1620
    rows = [{"prompt": ONE}, {"prompt": OTHER}]
    assert "prompt must have at most 48 tokens" in refusal(
        write("a.jsonl", jsonl(rows)), shapes, "shapes-wan"
    )
    allowed = [row | {"text": "truncate"} for row in rows]
    plan = plan_of(write("b.jsonl", jsonl(allowed)), shapes, "shapes-wan")
    assert (plan.num_rows, plan.num_clips, plan.num_cut) == (2, 1, 1)
    (spec,) = plan.pending()
    assert spec.is_text_cut
    assert spec.request.text == "truncate"


def test_truncation_is_allowed_by_the_defaults_a_row_or_an_axis(
    write: Write, shapes: ModelCatalog
) -> None:
    long = "red " * 48
    head = "model: shapes-wan\n"
    defaults = write("a.yaml", f"{head}defaults: {{text: truncate}}\nclips:\n  - prompt: {long}\n")
    assert plan_of(defaults, shapes).num_cut == 1
    column = write("a.csv", f"prompt,text\n{long},truncate\na,truncate\nb,\n")
    plan = plan_of(column, shapes, "shapes-wan")
    assert (plan.num_clips, plan.num_cut) == (3, 1)
    refused = write(
        "b.yaml",
        f"{head}defaults: {{text: truncate}}\nclips:\n  - {{prompt: {long}, text: refuse}}\n",
    )
    assert refusal(refused, shapes).startswith(f"{refused}:4: prompt must have at most 48 tokens")
    axis = write("c.yaml", f"{head}axes: {{prompt: [{long}], text: [truncate, refuse]}}\n")
    assert refusal(axis, shapes).startswith(f"{axis}:2: prompt must have at most 48 tokens")


def test_a_negative_prompt_without_an_effect_has_no_limit(
    write: Write, shapes: ModelCatalog
) -> None:
    long = "red " * 48
    path = write(
        "a.jsonl",
        jsonl(
            [
                {"prompt": "a", "negative_prompt": long, "method": "none"},
                {"prompt": "a", "negative_prompt": long, "method": "nag", "nag_scale": 1},
            ]
        ),
    )
    plan = plan_of(path, shapes, "shapes-wan")
    assert (plan.num_clips, plan.num_cut) == (1, 0)


def test_the_first_wrong_row_is_named_whatever_is_wrong_with_it(
    write: Write, catalog: FakeCatalog
) -> None:
    long, short = {"prompt": "a " * 600}, {"prompt": "a"}
    wrong = [{"prompt": "a", "seed": -1}]
    for before in (1, BATCH_CLIPS - 1, BATCH_CLIPS):
        rows = [{**short, "seed": seed} for seed in range(before)]
        late = write("late.jsonl", jsonl([*rows, long, *wrong]))
        with pytest.raises(ManifestError, match=rf"late\.jsonl:{before + 1}: prompt must have at"):
            make_plan(open_manifest(late, catalog, model="tiny"), (), ())
        early = write("early.jsonl", jsonl([*rows, *wrong, long]))
        with pytest.raises(ManifestError, match=rf"early\.jsonl:{before + 1}: seed must"):
            make_plan(open_manifest(early, catalog, model="tiny"), (), ())


def test_rows_are_in_order_whatever_the_number_of_them(write: Write, catalog: FakeCatalog) -> None:
    for count in (1, BATCH_CLIPS, BATCH_CLIPS + 1, 3 * BATCH_CLIPS):
        path = write("a.jsonl", jsonl([{"prompt": "a", "seed": seed} for seed in range(count)]))
        specs = open_manifest(path, catalog, model="tiny").specs()
        assert [spec.request.sampling.seed for spec in specs] == list(range(count))


PIXEL_EQUAL = {
    "negative prompts under none": [
        {"method": "none", "negative_prompt": text} for text in ("", "red", "blue", "a square")
    ],
    "trailing blanks": [{"prompt": prompt} for prompt in ("a circle", "a circle ", "a circle\n")],
    "doubled spaces": [{"prompt": prompt} for prompt in ("a circle", "a  circle")],
    "Unicode forms": [
        {"prompt": unicodedata.normalize(form, "a café")} for form in ("NFC", "NFD")
    ],
    "a scale of 1": [{"method": "none"}, {"method": "nag", "nag_scale": 1, "nag_tau": 3}],
    "the parameters of other methods": [
        {"method": "nag"}, {"method": "nag", "vsf_scale": 2, "nasa_scale": 2},
    ],
    "ranges that hold the same steps": [
        {"method": "nag", "nag_end": 0.3, "num_inference_steps": 4},
        {"method": "nag", "nag_end": 0.5, "num_inference_steps": 4},
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", PIXEL_EQUAL)
def test_rows_with_equal_pixels_are_one_clip(write: Write, shapes: ModelCatalog, case: str) -> None:
    rows = [{"prompt": "a circle", "negative_prompt": "red", **row} for row in PIXEL_EQUAL[case]]
    plan = plan_of(write("a.jsonl", jsonl(rows)), shapes, "shapes-wan")
    assert (plan.num_rows, plan.num_clips) == (len(rows), 1)
    (spec,) = plan.pending()
    assert isinstance(spec, ClipSpec)
    assert spec.request.prompt == rows[0]["prompt"]


def test_forms_of_a_letter_that_the_model_tells_apart_are_two_clips(
    write: Write, shapes: ModelCatalog
) -> None:
    path = write("a.jsonl", jsonl(PIXEL_EQUAL["Unicode forms"]))
    assert plan_of(path, shapes, "shapes-ltx").num_clips == 2
