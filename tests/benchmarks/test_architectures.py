"""The comparison of architectures: its methods, its figures and its page, at tiny size."""

import json
from pathlib import Path

import pytest

from benchmarks.architectures import BENCHMARK, methods_of
from benchmarks.command import main
from pipelines.shapes.training.images.models import MODELS
from tests.structure import ROOT


def test_vsf_and_nasa_are_measured_where_they_are_defined() -> None:
    names = {name: [method.name for method in methods_of(name)] for name in MODELS}
    assert names["shapes-sdxl"] == ["none", "cfg", "nag", "nag, strong", "vsf", "nasa"]
    assert names["shapes-sd3"] == ["none", "cfg", "nag", "nag, strong", "vsf"]
    assert names["shapes-flux"] == ["none", "cfg", "nag", "nag, strong"]


def test_the_committed_figures_have_every_method_of_their_model() -> None:
    cases = json.loads((ROOT / "docs" / "measurements" / "architectures.json").read_text())["cases"]
    assert len(cases) == 2 * len(MODELS)
    for case, found in cases.items():
        methods = [method.name for method in methods_of(case.partition(",")[0])]
        assert list(found["methods"]) == methods


@pytest.mark.models
def test_a_case_draws_every_task_under_every_method(tmp_path: Path) -> None:
    prefix = tmp_path / "architectures"
    main(BENCHMARK, [str(prefix), "--tiny", "--only", "flux, 4"])
    (case,) = json.loads(prefix.with_suffix(".json").read_text())["cases"].values()
    assert case["images"] == 6
    assert set(case["followed"]) == {"colour", "shape", "background"}
    found = {name: figures["passes"] for name, figures in case["methods"].items()}
    assert found == {"none": 1, "cfg": 2, "nag": 1, "nag, strong": 1}
    negated, low, high = case["methods"]["none"]["open, all"]["negated"]
    assert low <= negated <= high
    page = prefix.with_suffix(".md").read_text()
    assert "| shapes-flux, 4 steps | nag, strong | 1 |" in page
