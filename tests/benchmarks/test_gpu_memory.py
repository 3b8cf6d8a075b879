"""The benchmark of memory on a GPU, in its tiny form on a CPU."""

import json
from pathlib import Path

import pytest

from benchmarks.command import main
from benchmarks.gpu import memory
from benchmarks.report import Result


def test_each_case_is_measured_once_and_a_second_call_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = str(tmp_path / "found")
    main(memory.BENCHMARK, [prefix, "--tiny", "--only", "A14B"])
    first = json.loads((tmp_path / "found.json").read_text())["cases"]
    assert list(first) == ["Wan A14B, step"]
    main(
        memory.BENCHMARK,
        [prefix, "--tiny", "--only", "step", "LTX-2, decode in", "5B, decode in t"],
    )
    found = Result.read(tmp_path / "found.json").cases
    assert len(found) == 6
    assert found["Wan A14B, step"] == first["Wan A14B, step"]
    for name, case in found.items():
        assert case["median_s"] > 0, name
        assert case["estimated_bytes"] > 0, name
    assert "| Wan A14B, step |" in (tmp_path / "found.md").read_text()


def test_a_peak_is_compared_with_its_estimate() -> None:
    case = {"activation_bytes": 11, "estimated_bytes": 10}
    (figure,) = memory.figures({"a": case, "b": {**case, "activation_bytes": 0}})
    assert (figure.name, figure.value) == ("activations / estimate, a", 1.1)
