"""A benchmark from the command line to its report, on a real cluster with the Shapes weights."""

import csv
from pathlib import Path

import pytest

from infra.local.ray_cluster import LocalRay
from jobs.cli.main import main
from jobs.cli.pattern.command import EXIT_OK, EXIT_REFUSED

pytestmark = [pytest.mark.cluster, pytest.mark.models, pytest.mark.timeout(900)]

COLUMNS = {"suppression", "fidelity", "clean", "distance", "diversity", "motion", "cost"}


@pytest.fixture
def farm(ray_cluster: LocalRay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    return tmp_path / "report"


def bench(kind: str, report: Path, *options: str) -> int:
    chosen = (
        "--quick",
        "--model",
        "shapes-wan",
        "--steps",
        "2",
        "--attribute",
        "colour",
        "--processes",
        "1",
    )
    return main(["bench", kind, "--report", str(report), *chosen, *options])


def lines(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_negatives_are_rendered_judged_and_reported_and_a_second_run_renders_nothing(
    farm: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("negatives", farm) == EXIT_OK
    printed = capsys.readouterr().out
    assert "12 clips, 32 passes of a transformer" in printed
    assert "committed 12 clips" in printed
    rows = lines(farm / "negatives.csv")
    assert {(row["method"], row["case"], row["attribute"]) for row in rows} == {
        (method, case, attribute)
        for method in ("none", "cfg", "nag")
        for case in ("open", "hard")
        for attribute in ("all", "colour")
    }
    assert set(rows[0]) >= COLUMNS | {f"{name}_low" for name in COLUMNS}
    assert {row["num_pairs"] for row in rows} == {"2"}
    assert all(float(row["cost"]) > 0 for row in rows)
    text = (farm / "negatives.md").read_text()
    assert "| true | 3 | 1.00" in text
    assert "unfinished" not in text
    for picture in ("suppression-fidelity.png", "clean-steps.png", "negatives-sheet.png"):
        assert (farm / picture).stat().st_size > 5_000
        assert f"({picture})" in text

    judged = next((farm / "work").glob("seen-*.jsonl")).read_bytes()
    assert bench("negatives", farm) == EXIT_OK
    assert "nothing to render: 12 of 12 clips" in capsys.readouterr().out
    assert next((farm / "work").glob("seen-*.jsonl")).read_bytes() == judged
    assert (farm / "negatives.md").read_text() == text

    assert bench("negatives", farm, "--clips", "3", "--report-only") == EXIT_OK
    text = (farm / "negatives.md").read_text()
    assert "unfinished: shapes-wan, 2 steps, open, nag: 2 of 3 clips" in text


@pytest.mark.slow
def test_a_sweep_is_rendered_and_drawn(farm: Path) -> None:
    assert bench("parameters", farm, "--clips", "1") == EXIT_OK
    rows = lines(farm / "parameters.csv")
    assert {(row["model"], row["setting"]) for row in rows} == {
        ("shapes-wan", "none"), ("shapes-wan", "nag"), ("shapes-wan", "nag nag_norm=l2"),
        ("shapes-wan-bfloat16", "none"), ("shapes-wan-bfloat16", "nag"),
    }  # fmt: skip
    text = (farm / "parameters.md").read_text()
    assert "| bfloat16, nag |" in text
    assert (farm / "shapes-wan-2-norm.png").stat().st_size > 5_000


def test_an_unknown_option_is_refused_in_one_plain_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("negatives", tmp_path, "--method", "none,nagg") == EXIT_REFUSED
    assert "nag" in capsys.readouterr().err
    assert (
        main(["bench", "parameters", "--slice", "scale", "--report", str(tmp_path)]) == EXIT_REFUSED
    )
    assert "scale-tau" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
