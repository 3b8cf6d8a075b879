"""The clips of a benchmark: the same tasks for all settings, in pairs, in a fixed order."""

import json
from collections import Counter
from pathlib import Path

import pytest

from jobs.bench.design.blocks import planned_clips, write_design
from jobs.bench.design.options import STANDARD, BenchOptions, Sizes, cfg_scale, find_models
from jobs.bench.design.slices import SLICES, Slice, numbers_axis, slice_setting, sweep_settings
from jobs.bench.negatives import method_fields, negatives_blocks
from jobs.bench.parameters import parameters_blocks
from jobs.errors import RefusedError, UnknownModelError
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.plan.plan import make_plan
from pipelines.shapes.captions import phrase
from pipelines.shapes.evaluation.negation import CASES, draw_tasks
from pipelines.shapes.world import ATTRIBUTES

MODEL = ModelCatalog().config("shapes-wan")


FEW = Sizes(3, 2, 1)


def options(folder: Path, sizes: Sizes = FEW) -> BenchOptions:
    return BenchOptions("negatives", folder, sizes, models=("shapes-wan",))


def test_a_longer_list_of_tasks_begins_with_the_shorter_one() -> None:
    for case in CASES:
        assert draw_tasks("shape", case, 5) == draw_tasks("shape", case, 12)[:5]


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_open_case_leaves_the_negated_attribute_open_and_names_another(attribute: str) -> None:
    for task in draw_tasks(attribute, "open", 40):
        assert attribute not in dict(task.named)
        assert task.required == dict(task.named) != {}
        assert task.negative_prompt == phrase(attribute, task.value)


@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_hard_case_names_the_negated_value_and_at_least_one_other_attribute(
    attribute: str,
) -> None:
    for task in draw_tasks(attribute, "hard", 40):
        assert dict(task.named)[attribute] == task.value
        assert task.required
        assert attribute not in task.required


def test_held_out_tasks_are_others_and_list_what_they_name() -> None:
    known = {task.prompt for task in draw_tasks("shape", "open", 60)}
    seeds = {task.seed for task in draw_tasks("shape", "open", 60)}
    for task in draw_tasks("shape", "open", 60, "held-out"):
        words = {phrase(name, value) for name, value in task.named}
        assert set(task.prompt.split(", ")) == words
        assert task.prompt not in known
        assert task.seed not in seeds


def test_every_value_is_negated_equally_often() -> None:
    counts = Counter(task.value for task in draw_tasks("colour", "open", 48))
    assert counts == dict.fromkeys(ATTRIBUTES["colour"], 8)


def test_no_two_tasks_have_the_same_seed() -> None:
    seeds = [
        task.seed for name in ATTRIBUTES for case in CASES for task in draw_tasks(name, case, 60)
    ]
    assert len(set(seeds)) == len(seeds)


def test_all_methods_of_a_task_come_one_after_the_other_on_the_same_seed(tmp_path: Path) -> None:
    blocks = negatives_blocks(options(tmp_path), [MODEL])
    rows = [clip.row for clip in planned_clips(blocks)]
    for first in range(0, len(rows), 6):
        group = rows[first : first + 6]
        assert [row["method"] for row in group] == ["none", "cfg", "nag", "vsf", "nasa", "cfg+nag"]
        assert len({(row["prompt"], row["seed"], row["num_inference_steps"]) for row in group}) == 1
        assert group[0]["negative_prompt"] == ""
        assert len({row["negative_prompt"] for row in group[1:]}) == 1


def test_a_curve_has_the_tasks_of_the_main_cells(tmp_path: Path) -> None:
    main, *curves = negatives_blocks(options(tmp_path), [MODEL])
    assert (main.num_steps, [block.num_steps for block in curves]) == (25, [4, 8])
    assert all(set(block.tasks) <= set(main.tasks) for block in curves)


def test_the_standard_main_table_has_200_clips_a_cell(tmp_path: Path) -> None:
    blocks = negatives_blocks(options(tmp_path, STANDARD["negatives"]), [MODEL])
    counts = Counter((clip.setting.name, clip.task.case) for clip in planned_clips(blocks[:1]))
    assert set(counts.values()) == {200}
    assert len(counts) == 12


def test_the_farm_accepts_the_manifest_and_no_clip_repeats(tmp_path: Path) -> None:
    chosen = options(tmp_path)
    blocks = (*negatives_blocks(chosen, [MODEL]), *parameters_blocks(chosen, [MODEL]))
    path = tmp_path / "clips.jsonl"
    write_design(blocks[:3], path, tmp_path / "design.json")
    manifest = open_manifest(path, ModelCatalog())
    plan = make_plan(manifest, (), ())
    clips = list(planned_clips(blocks[:3]))
    assert (plan.num_clips, plan.num_repeats) == (len(clips), 0)
    assert [spec.name for spec in manifest.specs()] == [clip.name for clip in clips]
    design = json.loads((tmp_path / "design.json").read_text())
    assert [entry["name"] for entry in design] == [clip.name for clip in clips]


def test_the_farm_accepts_the_manifest_of_a_sweep(tmp_path: Path) -> None:
    chosen = BenchOptions(
        "parameters",
        tmp_path,
        Sizes(4, 0, 1),
        steps=(4, 1),
        slices=tuple(a_slice.name for a_slice in SLICES),
    )
    blocks = parameters_blocks(chosen, [MODEL])
    write_design(blocks, tmp_path / "sweep.jsonl", tmp_path / "design.json")
    plan = make_plan(open_manifest(tmp_path / "sweep.jsonl", ModelCatalog()), (), ())
    assert plan.num_rows == len(list(planned_clips(blocks)))
    assert plan.num_repeats == 12  # ranges of one step that hold the same step


def test_a_sweep_has_each_setting_once_and_no_range_without_a_step() -> None:
    names = [setting.name for setting in sweep_settings(MODEL, 25, SLICES)]
    assert len(set(names)) == len(names)
    assert {"none", "nag", "nag nag_end=0.25", "nag nag_norm=l2"} <= set(names)
    assert "nag nag_start=0.5" not in [setting.name for setting in sweep_settings(MODEL, 1, SLICES)]


def test_a_setting_leaves_out_values_equal_to_the_models_yaml() -> None:
    own = MODEL.nag
    scales = numbers_axis("nag_scale", own.nag_scale + 1, own.nag_scale)
    alphas = numbers_axis("nag_alpha", own.nag_alpha / 2, own.nag_alpha)
    plane = Slice("plane", "nag", scales, alphas)
    assert slice_setting(MODEL, plane, x=1, y=1).fields == (("method", "nag"),)
    assert dict(slice_setting(MODEL, plane, x=0, y=0).fields) == {
        "method": "nag", "nag_scale": own.nag_scale + 1, "nag_alpha": own.nag_alpha / 2,
    }  # fmt: skip


def test_cfg_has_a_scale_also_for_a_model_of_one_pass() -> None:
    from dataclasses import replace

    assert MODEL.sampling.guidance_scale == 1
    assert dict(method_fields(MODEL, "cfg"))["guidance_scale"] == cfg_scale(MODEL) == 3
    assert cfg_scale(ModelCatalog().config("shapes-wan-4step")) == 2
    with_scale = replace(MODEL, sampling=replace(MODEL.sampling, guidance_scale=3.0))
    assert method_fields(with_scale, "cfg") == (("method", "cfg"),)


def test_a_default_model_may_be_missing_and_a_named_one_may_not(tmp_path: Path) -> None:
    found, _ = find_models(BenchOptions("negatives", tmp_path, Sizes(1, 0, 1)), ModelCatalog())
    assert "shapes-wan" in [config.name for config in found]
    with pytest.raises(UnknownModelError, match="shapes-wam"):
        find_models(
            BenchOptions("negatives", tmp_path, Sizes(1, 0, 1), models=("shapes-wam",)),
            ModelCatalog(),
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("none", "nagg")}, "nag"),
        ({"methods": ("nag", "none")}, "begin with none"),
        ({"attributes": ("color",)}, "colour"),
        ({"cases": ("easy",)}, "easy"),
        ({"steps": (0,)}, "--steps"),
        ({"sizes": Sizes(0, 0, 1)}, "--clips"),
    ],
)
def test_unknown_options_are_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    values: dict[str, object] = {"kind": "negatives", "report": tmp_path, "sizes": Sizes(1, 0, 1)}
    with pytest.raises(RefusedError, match=message):
        BenchOptions(**(values | change))  # pyright: ignore[reportArgumentType]
