"""The page of simulated runs beside real ones, from a measured case. The run itself needs Ray."""

from pathlib import Path

import pytest

from benchmarks.command import main
from benchmarks.report import Result
from benchmarks.simulation.__main__ import BENCHMARK, REFERENCE, body_of, figures_of, predict_s

CASE = {
    "size": {"step_s": 0.25, "num_clips": 4, "workers": [2]},
    "num_workers": 2,
    "measured_s": 21.0,
    "killed_at_s": None,
    "clips": {steps: [[4, 0, 0, 1]] * 2 for steps in ("4", "8", "16", "32")},
    "starts_s": [5.0],
}


def test_the_prediction_is_compared_with_the_measured_time() -> None:
    """Eight clips of 4 s on two workers: 16 s behind a start of 5 s."""
    (figure,) = figures_of({REFERENCE: CASE})
    assert figure.name == "deviation of the prediction, 2 workers"
    assert 0 <= figure.value < 0.01
    assert figure.is_met
    killed = CASE | {"killed_at_s": 6.0}
    assert next(iter(figures_of({REFERENCE: killed}))).value > 0.1


def test_the_page_has_a_row_for_each_run() -> None:
    text = body_of({"1 worker": CASE | {"num_workers": 1}, REFERENCE: CASE})
    assert "| 1 worker | 8 | 21.0 |" in text
    assert "| 2 workers | 8 | 21.0 | 21.0 | 1.000 | 1.000 |" in text


@pytest.mark.slow
@pytest.mark.cluster
def test_the_tiny_form_renders_on_a_real_cluster_and_writes_the_page(tmp_path: Path) -> None:
    main(BENCHMARK, [str(tmp_path / "simulation"), "--tiny"])
    result = Result.read(tmp_path / "simulation.json")
    (case,) = result.cases.values()
    assert sum(len(times) for times in case["clips"].values()) == 8
    assert 0.5 < predict_s(case, case) / case["measured_s"] < 1.5
    assert "| 2 workers | 8 |" in (tmp_path / "simulation.md").read_text()
