"""The page of simulated runs beside real ones, from a measured case. The run itself needs Ray."""

from benchmarks.simulation import REFERENCE, body_of, figures_of

CASE = {
    "size": {"step_s": 0.25, "num_clips": 4, "workers": [2]},
    "num_workers": 2,
    "measured_s": 20.0,
    "killed_at_s": None,
    "clips": {"4": [[1, 0, 0, 1]] * 2, "8": [[2, 0, 0, 1]] * 2, "16": [[4, 0, 0, 1]] * 2,
              "32": [[8, 0, 0, 1]] * 2},
    "starts_s": [5.0],
}  # fmt: skip


def test_the_prediction_is_compared_with_the_measured_time() -> None:
    """30 s of clips on two workers: 15 s behind a start of 5 s."""
    (figure,) = figures_of({REFERENCE: CASE})
    assert figure.name == "deviation of the prediction, 2 workers"
    assert 0 <= figure.value < 0.01
    assert figure.is_met
    killed = CASE | {"killed_at_s": 6.0}
    assert next(iter(figures_of({REFERENCE: killed}))).value > 0.1


def test_the_page_has_a_row_for_each_run() -> None:
    text = body_of({"1 worker": CASE | {"num_workers": 1}, REFERENCE: CASE})
    assert "| 1 worker | 8 | 20.0 |" in text
    assert "| 2 workers | 8 | 20.0 | 20.0 | 1.000 | 1.000 |" in text
