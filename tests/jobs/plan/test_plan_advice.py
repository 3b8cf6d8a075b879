"""The lines of advice under a plan."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK
from jobs.manifest.manifest import open_manifest
from jobs.plan.advice import MAX_ADVICE, advise_on_plan
from jobs.plan.plan import Plan, make_plan
from pipelines.cost import prediction
from pipelines.cost.advice import advice_footnote
from pipelines.cost.prediction import Device
from pipelines.cost.published import WAN_14B
from tests.builders import tiny
from tests.fakes.catalog import FakeCatalog
from tests.jobs.cli.test_cli import MODEL

Write = Callable[[str, str | bytes], Path]
MANIFEST = """\
name: spring
model: tiny
defaults: {num_frames: 81, height: 720, width: 1280, num_inference_steps: 25}
clips:
- {prompt: a circle, parallel: {ulysses: 4}}
- {prompt: a square}
"""


@pytest.fixture
def large() -> FakeCatalog:
    """Return a catalog whose `tiny` has the geometry of Wan 14B."""
    catalog = FakeCatalog()
    catalog.models["tiny"] = replace(catalog.models["tiny"], geometry=WAN_14B)
    return catalog


def plan_of(text: str, write: Write, catalog: FakeCatalog, *, are_done: bool = False) -> Plan:
    manifest = open_manifest(write("spring.yaml", text), catalog)
    return make_plan(manifest, {spec.clip_id for spec in manifest.specs()} if are_done else (), ())


def test_a_group_and_a_long_clip_have_a_line_each(write: Write, large: FakeCatalog) -> None:
    group, single, footnote = advise_on_plan(plan_of(MANIFEST, write, large), large)
    assert single.startswith("tiny 1280x720x81, 25 steps: 9 minutes a clip on one device")
    assert group.startswith("tiny 1280x720x81, 25 steps: ulysses 4 sends")
    assert footnote == advice_footnote()


def test_the_guidance_of_the_manifest_decides_how_long_a_clip_is(
    write: Write, large: FakeCatalog
) -> None:
    guided = MANIFEST.replace(
        "{prompt: a square}", "{prompt: a square, guidance: {method: cfg, guidance_scale: 5}}"
    )
    _, single, _ = advise_on_plan(plan_of(guided, write, large), large)
    assert "17 minutes a clip on one device" in single


def test_advice_is_for_the_card_that_rendered_the_first_clips(
    write: Write, large: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = Device("H200", 690e12, "docs/measurements/gpu.json")
    monkeypatch.setattr(prediction, "CARDS", (*prediction.CARDS, fast))
    plan = plan_of(MANIFEST, write, large)
    for device in (None, "NVIDIA H100 80GB HBM3", "NVIDIA GH200 480GB"):
        _, single, footnote = advise_on_plan(plan, large, lambda name=device: name)
        assert "9 minutes a clip" in single
        assert footnote.startswith("predicted for H100s at 345 TFLOP/s, not measured: ")
    _, single, footnote = advise_on_plan(plan, large, lambda: "NVIDIA H200")
    assert "4 minutes a clip" in single
    assert footnote.startswith(
        "predicted for H200s at 690 TFLOP/s, measured by docs/measurements/gpu.json: "
    )


def test_clips_that_are_done_get_no_advice(write: Write, large: FakeCatalog) -> None:
    assert advise_on_plan(plan_of(MANIFEST, write, large, are_done=True), large) == []


@pytest.mark.parametrize("change", [{"device": "cpu"}, {"dtype": "float32"}])
def test_models_that_do_not_run_on_a_gpu_in_16_bits_get_no_advice(
    change: dict[str, str], write: Write, large: FakeCatalog
) -> None:
    model = large.models["tiny"]
    large.models["tiny"] = replace(model, config=replace(model.config, **change))
    assert advise_on_plan(plan_of(MANIFEST, write, large), large) == []


def test_advice_on_many_kinds_of_clip_is_cut_and_the_rest_counted(
    write: Write, large: FakeCatalog
) -> None:
    rows = "".join(
        f"- {{prompt: a, num_inference_steps: {steps}}}\n" for steps in range(30, 33 + MAX_ADVICE)
    )
    lines = advise_on_plan(plan_of(MANIFEST + rows, write, large), large)
    assert lines[MAX_ADVICE:] == ["and 5 more kinds of clip", advice_footnote()]


def test_plan_prints_advice_for_a_group(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.wan_pipeline().save_pretrained(tmp_path / "weights")
    on_gpus = (
        MODEL.format(source="./weights")
        .replace("float32", "bfloat16")
        .replace("device: cpu", "device: cuda")
    )
    (tmp_path / "tiny.yaml").write_text(on_gpus)
    path = tmp_path / "spring.yaml"
    path.write_text(
        "name: spring\nmodel: tiny\nclips: [{prompt: a, num_frames: 81, height: 720, width: 1280, "
        "num_inference_steps: 1000, parallel: {ulysses: 2}}]\n"
    )
    assert (
        main(
            ["plan", str(path), "--models", str(tmp_path), "--output", (tmp_path / "out").as_uri()]
        )
        == EXIT_OK
    )
    printed = capsys.readouterr().out
    assert "  tiny 1280x720x81, 1000 steps: ulysses 2 sends " in printed
    assert f"  {advice_footnote()}\n" in printed


def test_a_plan_of_shapes_models_has_no_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "spring.yaml"
    path.write_text(
        "name: spring\nmodel: shapes-wan\n"
        "clips: [{prompt: a circle}, {prompt: a, parallel: {ulysses: 2}}]\n"
    )
    assert main(["plan", str(path), "--output", (tmp_path / "out").as_uri()]) == EXIT_OK
    assert advice_footnote() not in capsys.readouterr().out
